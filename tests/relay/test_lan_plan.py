from __future__ import annotations

import dataclasses

from actors.settings import LanSettings
from relay.lan_plan import lan_plan, lan_settings, max_flows
from relay.settings import Settings
from transport.descriptors import own_budget

BY_THE_MACHINE = {"max_flows", "max_questions"}
"""What the number of files decides, too."""


def test_without_settings_a_lan_is_what_its_actors_expect():
    planned, expected = (dataclasses.asdict(found) for found in (lan_settings(Settings()), LanSettings()))
    for name in BY_THE_MACHINE:
        planned.pop(name), expected.pop(name)
    assert planned == expected


def test_flows_are_bounded_by_the_files_that_there_are():
    assert max_flows(Settings(max_flows_total=7)) == 7
    assert max_flows(Settings(max_flows_total=1_000_000)) == own_budget().flows


def test_each_lan_has_a_policy_of_its_own():
    plan = lan_plan(Settings(host_access=True))
    one, other = plan.policy(), plan.policy()
    assert one is not other
    assert one.decide("10.0.2.4").allowed
    assert not lan_plan(Settings()).policy().decide("10.0.2.4").allowed
