from __future__ import annotations

import pytest
from host_parts import add_ipv6, forward_ipv6, in_namespace, ip

from transport.host import local_routes as module
from transport.host.local_routes import local_routes


def test_all_that_comes_to_this_machine_is_listed():
    async def main():
        ip("link add host0 type veth peer name host1")
        ip("link set host0 up")
        ip("link set host1 up")
        before = local_routes()
        assert {"127.0.0.0/8", "127.0.0.1", "::1"} <= before
        ip("addr add 5.5.5.1/24 dev host0")
        ip("addr add 7.7.7.7/24 dev lo")
        ip("route add local 9.9.9.0/28 dev lo")
        ip("-6 route add local 2400:cb00:8::/64 dev lo")
        add_ipv6("2400:cb00:1::1", "host0")
        found = local_routes() - before
        assert {"5.5.5.1", "7.7.7.7", "7.7.7.0/24", "9.9.9.0/28"} <= found
        assert {"2400:cb00:8::/64", "2400:cb00:1::1"} <= found
        networks_of_others = {"5.5.5.0/24", "5.5.5.255", "2400:cb00:1::/64", "2400:cb00:1::", "ff00::/8"}
        assert not networks_of_others & found

    in_namespace(main)


def test_a_router_has_the_first_address_of_each_ipv6_network():
    async def main():
        ip("link add host0 type veth peer name host1")
        ip("link set host0 up")
        ip("link set host1 up")
        forward_ipv6()
        add_ipv6("2400:cb00:1::1", "host0")
        assert {"2400:cb00:1::", "2400:cb00:1::1"} <= local_routes()

    in_namespace(main)


def test_more_routes_than_one_answer_holds_are_all_listed(tmp_path):
    wanted = {f"9.9.{high}.{low}" for high in range(4) for low in range(256)}
    commands = tmp_path / "commands"
    commands.write_text("".join(f"route add local {address} dev lo\n" for address in wanted))

    async def main():
        ip(f"-batch {commands}")
        assert wanted <= local_routes()

    in_namespace(main)


def test_what_the_kernel_refuses_is_an_oserror(monkeypatch):
    monkeypatch.setattr(module, "_GET_ROUTE", 9998)
    with pytest.raises(OSError, match="not supported"):
        local_routes()


def test_other_systems_name_none(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert local_routes() == frozenset()
