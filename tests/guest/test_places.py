from __future__ import annotations

import pytest

from guest.places import MAX_TOLD, Places


def round_of(places):
    """All that are gone to, one after the other, until the first comes again."""
    urls = [places.url]
    places.go_on()
    while places.url != urls[0]:
        urls.append(places.url)
        places.go_on()
    return urls


def test_given_urls_are_gone_to_in_turn():
    places = Places(["https://a:1/room/lab", "https://b:2/room/lab", "https://a:1/room/lab"])
    assert places.has_others
    assert round_of(places) == ["https://a:1/room/lab", "https://b:2/room/lab"]
    assert not Places(["https://a"]).has_others


@pytest.mark.parametrize("given", [[], ["http://a"], ["https://a", "b"]])
def test_what_is_no_url_is_refused(given):
    with pytest.raises(ValueError, match=r"URL|address"):
        Places(given)


def test_what_a_relay_names_has_the_room_of_the_url_in_use_and_replaces_what_was_named_before():
    places = Places(["https://a:1/room/lab?token=secret"])
    places.learn(["https://a:1", "https://b"])
    assert round_of(places) == ["https://a:1/room/lab?token=secret", "https://b:443/room/lab?token=secret"]
    assert "secret" not in places.shown
    places.go_on()
    places.learn(["https://b", "https://c:3"])
    in_use = places.url
    assert [url.split("/")[2] for url in round_of(places)] == ["b:443", "c:3", "a:1"]
    assert places.url == in_use
    places.learn(None)
    assert [url.split("/")[2] for url in round_of(places)] == ["b:443", "a:1"]


def test_the_relays_own_name_for_itself_is_the_last_to_go_to():
    places = Places(["https://127.0.0.1:1/"])
    places.learn(["https://a:1", "https://b:1", "https://c:1"])
    assert [url.split("/")[2] for url in round_of(places)] == ["127.0.0.1:1", "b:1", "c:1", "a:1"]


def test_no_other_name_of_the_machine_in_use_is_gone_to_before_other_machines():
    places = Places(["https://a2:1/"])
    places.learn(["https://a1:1", "https://b1:1", "https://a2:1", "https://b2:1"])
    assert [url.split("/")[2] for url in round_of(places)] == ["a2:1", "b1:1", "b2:1", "a1:1"]


@pytest.mark.parametrize(
    "told", ["https://b", {"a": 1}, [1, None, ["https://b"], "ftp://b", "https://" + "b" * 300]]
)
def test_what_is_none_is_left_out(told):
    places = Places(["https://a:1/"])
    places.learn(told)
    assert not places.has_others


def test_no_more_are_learned_than_the_bound():
    places = Places(["https://a:1/"])
    places.learn([f"https://b{n}" for n in range(1000)])
    assert len(places) == 1 + MAX_TOLD
