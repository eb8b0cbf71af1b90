"""What an operator can set, and where it comes from.

One table, the fields of ``Settings``, describes every setting; flags, environment variables and the TOML
file are derived from it. Its parts are in ``clients``, ``network``, ``egress`` and ``process``, ``settings``
puts them together, and ``resolution`` finds the values.
"""

from relay.setting_kinds import SettingsError
from relay.settings.resolution import Origin, add_arguments, config_path, explain, resolve
from relay.settings.settings import OPTIONS, Settings, SettingsWithRooms, count_of_workers

__all__ = [
    "OPTIONS",
    "Origin",
    "Settings",
    "SettingsError",
    "SettingsWithRooms",
    "add_arguments",
    "config_path",
    "count_of_workers",
    "explain",
    "resolve",
]
