from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from guest import client_arguments

HASH = "ab" * 32


def parse(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    client_arguments.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("--cert-hash", HASH), {"cert_hash": HASH}),
        (("--cert-hash", f"{HASH},{HASH}"), {"cert_hash": f"{HASH},{HASH}"}),
        (("--name", "web"), {"name": "web"}),
        (("--ca", "ca.pem"), {"ca": Path("ca.pem")}),
        (("--insecure", "--encap", "raw"), {"insecure": True, "encap": "raw"}),
    ],
)
def test_what_was_asked_for_is_what_the_client_gets(words, options):
    args = parse(*words, "https://relay.example:4433/")
    nothing = {"encap": None, "cert_hash": None, "ca": None, "insecure": False, "name": None}
    assert client_arguments.client_options(args) == nothing | options
    assert (args.url, args.mac) == ("https://relay.example:4433/", None)


@pytest.mark.parametrize(
    "words",
    [
        ("ftp://relay.example/",),
        ("--mac", "52-54-00", "https://r/"),
        ("--mac", "00:00:00:00:00:00", "https://r/"),
        ("--mac", "33:33:00:00:00:01", "https://r/"),
        ("--cert-hash", "xyz", "https://r/"),
        ("--cert-hash", f"{HASH},", "https://r/"),
        ("--cert-hash", ",".join([HASH] * 17), "https://r/"),
        ("--encap", "odd", "https://r/"),
    ],
)
def test_what_is_wrong_is_refused_where_it_is_read(words):
    with pytest.raises(argparse.ArgumentError) as caught:
        parse(*words)
    assert "\n" not in str(caught.value)
