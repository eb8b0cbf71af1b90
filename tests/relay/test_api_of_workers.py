"""What the supervisor's API has and refuses by itself; tests/system/test_workers.py asks it with workers."""

from __future__ import annotations

import pytest

from relay.admin.api import ROUTES
from relay.supervisor.api import WholeApi


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_of_one_process_is_answered_for_several(route):
    assert callable(getattr(WholeApi, route.handle.__name__))
