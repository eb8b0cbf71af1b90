from __future__ import annotations

import pytest

from netstack.resume import SECRET_LENGTH, is_secret_of, secret_of

KEY, MAC = b"k" * 32, b"\x52\x54\0\0\0\1"


def test_a_secret_is_one_mac_s_on_one_port_under_one_key():
    secret = secret_of(KEY, MAC, 5)
    assert len(bytes.fromhex(secret)) == SECRET_LENGTH
    assert is_secret_of(KEY, MAC, 5, secret)
    assert not is_secret_of(KEY, b"\x52\x54\0\0\0\2", 5, secret)
    assert not is_secret_of(KEY, MAC, 6, secret)
    assert not is_secret_of(b"K" * 32, MAC, 5, secret)


@pytest.mark.parametrize("said", ["", "0" * 32, "é" * 32, "\ud800", "x" * 10_000])
def test_what_is_no_secret_is_none(said):
    assert not is_secret_of(KEY, MAC, 5, said)
