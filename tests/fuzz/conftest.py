"""The whole LAN and QUIC are put together from the parts of other tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / parts) for parts in ("actors", "transport")]
