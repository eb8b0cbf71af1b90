"""Tokens from files: the commands of clients, against a relay that asks for one."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from codecs import BOM_UTF8
from pathlib import Path

import pytest
from processes import THIS_TREE, Program, Relay, run
from waiting import until

from guest import client_arguments
from guest.target import Target
from guest.token_file import TokenFile
from guest.vm_client import vm_client
from relay.tokens import make_key, public_half, sign

KEY = make_key("EdDSA")


def token(**claims):
    return sign(KEY, {"exp": time.time() + 600, **claims})


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "public.json"
    keys.write_text(json.dumps({"keys": [public_half(KEY)]}))
    relay = Relay("--auth", "required", "--auth-keys", keys)
    yield relay
    relay.stop()


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{token()}\n")
    return file


def command(*arguments, environment=None, status=0):
    done = run(*THIS_TREE, *arguments, env=os.environ | (environment or {}), check=False)
    assert done.returncode == status, done.stderr
    return done


def test_it_is_read_again_for_each_session_and_holds_while_the_file_is_rewritten(tmp_path):
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    read = TokenFile(file, "--token-file")
    for text, found in (("d.e.f", "d.e.f"), ("", "d.e.f"), ("two words", "d.e.f"), ("g.h.i\n\n", "g.h.i")):
        file.write_text(text)
        assert read() == found
    file.unlink()
    assert read() == "g.h.i"


def test_a_file_may_be_as_windows_editors_write_it(tmp_path):
    file = tmp_path / "token"
    file.write_bytes(BOM_UTF8 + b"a.b.c\r\n")
    assert TokenFile(file, "--token-file")() == "a.b.c"


def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a.b.c\n",))
    writer.start()
    read = TokenFile(pipe, "--token-file")
    writer.join()
    assert [read(), read()] == ["a.b.c", "a.b.c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"", "there is no token in it"),
        (b" \n\n", "there is no token in it"),
        (b"a.b.c d.e.f", "must hold the token and nothing else"),
        (b"a.b.c\r\nx-evil: 1", "must hold the token and nothing else"),
        (b"\xff\xfe\0", "must hold the token and nothing else"),
        (b"a" * 4097, "must hold the token and nothing else"),
        (b"a" * 100_000, "must hold the token and nothing else"),
    ],
)
def test_a_file_without_a_token_is_told_in_one_line_that_shows_nothing_of_it(tmp_path, content, said):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        TokenFile(file, "--token-file")
    assert str(caught.value).startswith(f"--token-file {file}: ")
    assert "\n" not in str(caught.value)
    assert "evil" not in str(caught.value)


def test_a_folder_is_none(tmp_path):
    with pytest.raises(ValueError, match="Is a directory"):
        TokenFile(tmp_path, "--token-file")


def parsed(monkeypatch, url, *words, variable=None):
    if variable is None:
        monkeypatch.delenv("VMRELAY_TOKEN_FILE", raising=False)
    else:
        monkeypatch.setenv("VMRELAY_TOKEN_FILE", str(variable))
    parser = argparse.ArgumentParser()
    client_arguments.add_arguments(parser)
    options = client_arguments.client_options(parser.parse_args([*map(str, words), url]))
    return options["token"]() if "token" in options else None


def test_the_flag_wins_over_the_variable_and_the_url_over_that(monkeypatch, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("one")
    two.write_text("two")
    url = "https://relay.example/"
    assert parsed(monkeypatch, url) is None
    assert parsed(monkeypatch, url, variable="") is None
    assert parsed(monkeypatch, url, variable=two) == "two"
    assert parsed(monkeypatch, url, "--token-file", one, variable=two) == "one"
    assert parsed(monkeypatch, f"{url}?token=three", variable=two) is None
    with pytest.raises(ValueError, match="the URL has a token already"):
        parsed(monkeypatch, f"{url}?encap=raw&token=three", "--token-file", one)
    with pytest.raises(ValueError, match="VMRELAY_TOKEN_FILE /nowhere: No such file"):
        parsed(monkeypatch, url, variable="/nowhere")


def test_what_is_no_token_is_not_sent():
    with pytest.raises(ValueError, match="other characters"):
        Target("relay.example", 443, "/", "a\r\nb: c")
    assert "secret" not in repr(Target("relay.example", 443, "/", "secret"))


def test_a_card_gets_in_by_it_and_asks_for_one_each_time(relay):
    given = [token(name="first"), token(name="second")]

    async def scenario():
        async with vm_client(
            relay.url, cert_hash=relay.hash, token=lambda: given.pop(0), reconnect=True
        ) as nic:
            nic._session.abandon("the network is gone")
            await until(lambda: not given and nic.attached)

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_shell_and_netcheck_get_in_by_either_carrier(relay, file, by):
    flag = ("--token-file", file) if by == "flag" else ()
    environment = {} if by == "flag" else {"VMRELAY_TOKEN_FILE": str(file)}
    target = (*flag, "--cert-hash", relay.hash, relay.url)
    said = command("shell", *target, "-c", "print(address)", environment=environment)
    assert said.stdout.startswith("10.0.2.")
    checked = json.loads(command("netcheck", *target, "--json", environment=environment).stdout)
    assert checked["steps"]["WebTransport"]["ok"]
    assert checked["steps"]["WebSocket"]["ok"]


def test_attach_says_at_once_that_there_is_no_token(relay, tmp_path):
    """Not only when the machine behind the socket speaks."""
    said = command(
        *("attach", "--qemu", tmp_path / "nic0", "--token-file", tmp_path / "token"),
        *("--cert-hash", relay.hash, relay.url),
        status=2,
    )
    assert said.stderr == f"vmrelay: error: --token-file {tmp_path}/token: No such file or directory\n"
    assert not Path(tmp_path / "nic0").exists()


def test_attach_gets_in_by_it_and_shows_it_to_nobody(relay, file, tmp_path):
    words = ("--qemu", tmp_path / "nic0", "--mac", "52:54:15:ee:00:07", "--token-file", file)
    program = Program(*THIS_TREE, "attach", *words, "--cert-hash", relay.hash, relay.url)
    try:
        program.wait_for("attached to .* as 52:54:15:ee:00:07, address")
        secret = file.read_text().strip()
        assert secret not in Path(f"/proc/{program.pid}/cmdline").read_text()
        assert secret not in program.output + relay.output
    finally:
        program.stop()
