from __future__ import annotations

import pytest
from given_settings import assert_named_and_refused


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cluster", "http://nats:4222", "must be URLs such as nats://HOST:4222"),
        ("cluster", "nats://host:70000", "must be URLs such as nats://HOST:4222"),
        ("cluster", ",".join(f"nats://n{n}" for n in range(17)), "must be at most 16 servers"),
        *(
            ("url", url, "must be URLs such as https://relay.example:4433, without a path")
            for url in (
                *(
                    "http://a",
                    "a:4433",
                    "https://",
                    "https://u@a",
                    "https://a/room/x",
                    "https://a?x",
                    "https://a:0",
                ),
                *(
                    "https://a:b",
                    "https://a:",
                    "https://\u00e4",
                    "https://a b",
                    f"https://{'a' * 101}",
                    "https://[::1",
                ),
            )
        ),
        ("url", ",".join(f"https://a{n}" for n in range(5)), "must be at most 4 URLs"),
        ("cluster-name", "a.b", "must be 1 to 63 letters"),
        ("cluster-node", "n" * 256, "must be a name of up to 255 characters"),
        ("workers", "0", "must be auto, or a whole number from 1 to 64"),
        ("log-format", "xml", "one of auto, human, json"),
        ("log-level", "loud", "one of debug, info, warning, error"),
    ],
)
def test_bad_values_name_their_source(name, text, message):
    assert_named_and_refused(name, text, message)
