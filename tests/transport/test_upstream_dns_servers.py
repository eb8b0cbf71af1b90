"""Which name servers are asked, and how: what /etc/resolv.conf says (resolv.conf(5))."""

from __future__ import annotations

import asyncio

from upstream_dns_parts import (
    Server,
    addresses,
    answer,
    framed,
    scenario,
)

from transport.host import upstream_dns


@scenario
async def test_servers_come_from_the_file_which_is_read_again_when_it_changes(network, monkeypatch, tmp_path):
    monkeypatch.setattr(upstream_dns, "RELOAD_INTERVAL", 0.0)
    server = await network.server(lambda query: [answer(query)])
    monkeypatch.setattr(upstream_dns, "parse_resolv_conf", lambda text: (server.address,) if text else ())
    file = tmp_path / "resolv.conf"
    network.use(resolv_conf=file)
    assert await network.ask() is None
    assert network.counters["dns.upstream.file_unread"] == 1
    file.write_text("nameserver 127.0.0.1")
    assert addresses(await network.ask()) == ["192.0.2.1"]
    file.unlink()
    assert addresses(await network.ask()) == ["192.0.2.1"], "the servers of before are better than none"
    local = await network.server(lambda query: [answer(query, "192.0.2.3")])
    monkeypatch.setattr(upstream_dns, "_LOOPBACK", (local.address,))
    file.write_text("")
    assert addresses(await network.ask()) == ["192.0.2.3"], "who is named by nobody is on this machine"


def use_file(network, monkeypatch, tmp_path, options, *servers):
    """Use a resolv.conf with ``options`` that names ``servers``."""
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver 127.0.0.1\noptions {options}\n")
    monkeypatch.setattr(upstream_dns, "parse_resolv_conf", lambda _: tuple(each.address for each in servers))
    network.use(resolv_conf=file)


@scenario
async def test_use_vc_asks_by_tcp_only(network, monkeypatch, tmp_path):
    server = await network.server(lambda query: [], lambda query: framed(answer(query)))
    use_file(network, monkeypatch, tmp_path, "use-vc", server)
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert server.queries == []


@scenario
async def test_who_is_asked_by_tcp_only_is_listened_to_until_the_deadline(network, monkeypatch, tmp_path):
    class SlowServer(Server):
        async def serve_stream(self, reader, writer):
            await asyncio.sleep(0.3)
            await super().serve_stream(reader, writer)

    monkeypatch.setattr(upstream_dns, "TCP_TIMEOUT", 0.05)
    server = await network.server(lambda query: [], lambda query: framed(answer(query)), SlowServer)
    use_file(network, monkeypatch, tmp_path, "use-vc timeout:5", server)
    assert addresses(await network.ask()) == ["192.0.2.1"]


@scenario
async def test_rotate_begins_with_another_server_each_time(network, monkeypatch, tmp_path):
    servers = [await network.server(lambda query: [answer(query)]) for _ in range(3)]
    use_file(network, monkeypatch, tmp_path, "rotate", *servers)
    for _ in range(6):
        await network.ask()
    assert [len(server.queries) for server in servers] == [2, 2, 2]


@scenario
async def test_attempts_say_how_often_a_server_is_asked(network, monkeypatch, tmp_path):
    monkeypatch.setattr(upstream_dns, "DEADLINE", 1.5)
    server = await network.server(lambda query: [])
    use_file(network, monkeypatch, tmp_path, "attempts:3", server)
    assert await network.ask() is None
    assert len(server.queries) == 3


@scenario
async def test_who_is_to_be_asked_once_is_asked_without_edns_too(network, monkeypatch, tmp_path):
    server = await network.server(lambda query: [answer(query)] if query.edns < 0 else [])
    use_file(network, monkeypatch, tmp_path, "attempts:1", server)
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert [query.edns for query in server.queries] == [0, -1]


@scenario
async def test_the_timeout_says_when_the_next_is_asked(network, monkeypatch, tmp_path):
    silent = await network.server(lambda query: [])
    other = await network.server(lambda query: [answer(query)])
    use_file(network, monkeypatch, tmp_path, "timeout:1", silent, other)
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert addresses(await network.ask()) == ["192.0.2.1"]
    assert loop.time() - before > 0.9, "the default of these tests is 0.2 s"


@scenario
async def test_a_long_timeout_moves_the_deadline(network, monkeypatch, tmp_path):
    monkeypatch.setattr(upstream_dns, "DEADLINE", 0.3)
    silent = await network.server(lambda query: [])
    other = await network.server(lambda query: [answer(query)])
    use_file(network, monkeypatch, tmp_path, "timeout:1", silent, other)
    assert addresses(await network.ask()) == ["192.0.2.1"]


@scenario
async def test_the_file_is_not_read_for_every_question(network, monkeypatch, tmp_path):
    reads = []
    monkeypatch.setattr(upstream_dns, "parse_resolv_conf", lambda text: (reads.append(text), ())[1])
    file = tmp_path / "resolv.conf"
    file.write_text("")
    network.use(resolv_conf=file)
    await asyncio.gather(*(network.ask(token=1) for _ in range(5)))
    assert len(reads) == 1
