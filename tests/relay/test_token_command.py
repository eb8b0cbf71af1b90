"""vmrelay token: keys and tokens as a person makes them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from relay import main
from relay.tokens import load_keys


@pytest.fixture
def token(capsys):
    def run(*words, status=0):
        try:
            got: object = main.main(["token", *map(str, words)])
        except SystemExit as left:
            got = left.code
        said = capsys.readouterr()
        assert got == status, said.err
        return said.out.strip() if status == 0 else said.err

    return run


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
def test_a_token_is_accepted_by_the_public_half(token, tmp_path, algorithm):
    keys = tmp_path / "keys.json"
    token("key", keys, "--algorithm", algorithm)
    assert keys.stat().st_mode & 0o777 == 0o600
    public = tmp_path / "public.json"
    public.write_text(token("public", keys))
    assert '"d"' not in public.read_text()
    made = token("create", keys, "--room", "lab", "--name", "web", "--expires", "2h")
    found = load_keys(public).read(made, time.time())
    assert (found.room, found.name) == ("lab", "web")
    assert 7190 < found.expires - time.time() <= 7200
    assert len(found.id) == 18


def test_a_second_key_signs_and_the_first_still_holds(token, tmp_path):
    keys = tmp_path / "keys.json"
    first = token("key", keys)
    old = token("create", keys)
    second = token("key", keys)
    new = token("create", keys)
    loaded = load_keys(keys)
    assert list(loaded.by_id) == [first, second]
    assert loaded.read(old, time.time()).id != loaded.read(new, time.time()).id
    assert json.loads(token("show", new))["kid"] == second
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_who_may_read_a_file_of_keys_still_can_when_it_has_another_one(token, tmp_path):
    """As a relay that checks by a secret, which is another user of the file's group."""
    keys, link = tmp_path / "keys.json", tmp_path / "link.json"
    first = token("key", keys, "--algorithm", "HS256")
    groups = [group for group in os.getgroups() if group != os.getegid()]
    if groups:
        os.chown(keys, -1, groups[0])
    keys.chmod(0o440)
    before = keys.stat()
    link.symlink_to("keys.json")
    second = token("key", link, "--algorithm", "HS256")
    assert list(load_keys(keys).by_id) == [first, second]
    after = keys.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_token_says_is_shown(token, tmp_path, monkeypatch):
    keys = tmp_path / "keys.json"
    token("key", keys)
    made = token("create", keys, "--room", "lab", "--id", "t1")
    said = json.loads(token("show", made, "--keys", keys))
    assert (said["room"], said["jti"], said["alg"]) == ("lab", "t1", "EdDSA")
    assert said["exp"].endswith("+00:00")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{made}\n"))
    assert json.loads(token("show", "-"))["jti"] == "t1"


def test_programs_are_told_by_what_to_revoke_a_token_and_when_it_ends(token, tmp_path):
    keys = tmp_path / "keys.json"
    made = json.loads(token("key", keys, "--algorithm", "HS256", "--json"))
    assert made == {"kid": next(iter(load_keys(keys).by_id)), "alg": "HS256"}
    told = json.loads(token("create", keys, "--expires", "2h", "--json"))
    found = load_keys(keys).read(told["token"], time.time())
    assert told["id"] == found.id
    assert datetime.fromisoformat(told["expires"]).timestamp() == found.expires


def test_a_token_has_macs_limits_and_rights(token, tmp_path):
    keys = tmp_path / "keys.json"
    token("key", keys)
    made = token(
        *("create", keys, "--mac", "52-54-00-00-00-01", "--mac", "52:54:00:00:00:02", "--rights", "none"),
        *("--bit-rate", "50M", "--packet-rate", "off", "--max-flows", "7"),
    )
    said = json.loads(token("show", made, "--keys", keys))
    assert said["mac"] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    assert said["limits"] == {"bit-rate": "50M", "packet-rate": "off", "max-flows": 7}
    assert said["rights"] == []
    found = load_keys(keys).read(made, time.time())
    assert (found.limits, found.rights) == ({"bit_rate": 50_000_000, "packet_rate": 0, "max_flows": 7}, set())
    made = token("create", keys, "--rights", "bridge,admin")
    assert load_keys(keys).read(made, time.time()).rights == {"bridge", "admin"}


@pytest.mark.parametrize(("language", "program"), [("python", [sys.executable]), ("js", ["node"])])
def test_the_examples_of_the_document_make_tokens(token, tmp_path, language, program):
    document = (Path(__file__).parent.parent.parent / "docs/deployment.md").read_text()
    example = re.search(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "example.mjs").write_text(example)
    token("key", tmp_path / "keys.json")
    done = subprocess.run(
        [*program, "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    found = load_keys(tmp_path / "keys.json").read(done.stdout.strip(), time.time())
    assert found.room == "lab"
    assert found.expires - time.time() > 7 * 3600


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("create", "{}/keys.json", "--name", "no name!"), 2, "'no name!' is no name"),
        (("create", "{}/keys.json", "--name", "gateway"), 2, "'gateway' is no name"),
        (["create", "{}/none.json"], 1, "No such file"),
        (["create", "{}/none.json", "--mac", "web"], 2, "is not a MAC address"),
        (["create", "{}/none.json", "--mac", "ff:ff:ff:ff:ff:ff"], 2, "is no MAC that a guest can have"),
        (["create", "{}/none.json", "--rights", "x"], 2, "is not none"),
        (["create", "{}/none.json", "--bit-rate", "fast"], 2, "--bit-rate: must be off, or a number"),
        (["create", "{}/none.json", "--max-flows", "0"], 2, "must be a whole number from 1"),
        (["create", "{}/none.json", "--room", "No Room"], 2, "a room's name is"),
        (["create", "{}/none.json", "--expires", "soon"], 2, "such as 12h or 30d"),
        (["create", "{}/none.json", "--expires", "9999d"], 2, "such as 12h or 30d"),
        (["create", "{}/none.json", "--expires", "0.5"], 2, "such as 12h or 30d"),
        (["create", "{}/none.json", "--id", "two words"], 2, "1 to 200 visible ASCII characters"),
        (["show", "nonsense"], 1, "that is no token"),
        (["key", "{}/no/keys.json"], 1, "No such file"),
        (["kye", "{}/keys.json"], 2, "perhaps"),
    ],
)
def test_what_is_wrong_is_one_line(token, tmp_path, words, status, said):
    error = token(*(word.format(tmp_path) for word in words), status=status)
    assert said in error
    assert error.count("\n") == 1
    assert error.startswith("vmrelay: error: ")
