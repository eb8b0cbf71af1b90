from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netstack.port_hold import PortHold


def test_a_released_port_is_held_for_the_time():
    ports = PortHold(120, 10)
    assert not ports.holds(5000, 0)
    ports.release(5000, 7)
    assert ports.holds(5000, 7)
    assert ports.holds(5000, 126.9)
    assert not ports.holds(5001, 126.9)
    assert not ports.holds(5000, 127)
    assert len(ports) == 0


def test_a_port_released_again_is_held_anew():
    ports = PortHold(120, 10)
    ports.release(5000, 0)
    ports.release(5000, 100)
    assert ports.holds(5000, 150)
    assert not ports.holds(5000, 220)


def test_the_longest_held_make_room():
    ports = PortHold(120, 3)
    for port in range(5):
        ports.release(port, port)
    assert [port for port in range(5) if ports.holds(port, 5)] == [2, 3, 4]


def test_nothing_is_held_where_that_is_the_setting():
    for ports in (PortHold(0, 10), PortHold(120, 0)):
        ports.release(5000, 0)
        assert not ports.holds(5000, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50))), st.integers(1, 4))
def test_as_a_simple_model_says(steps, limit):
    ports, now, released = PortHold(20, limit), 0, []
    for port, wait in steps:
        now += wait
        released.append((now, port))
        ports.release(port, now)
        recent = [p for when, p in released[-limit:] if now < when + 20]
        assert {p for p in range(6) if ports.holds(p, now)} == set(recent)
        assert len(ports) <= limit
