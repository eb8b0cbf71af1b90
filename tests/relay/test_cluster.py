"""What settings mean for a cluster."""

from pathlib import Path

import pytest

from relay.cluster import MOST_KEY, nats_servers, node_of, place_alone, room_key
from relay.settings import Settings, SettingsError
from relay.workers.place import NODE_SHIFT


@pytest.fixture
def key(tmp_path):
    file = tmp_path / "key"
    file.write_text("a secret of many bytes\n")
    return file


def settings(key, **more):
    return Settings(cluster=("nats://nats:4222",), cluster_key=key, **more)


def test_a_relay_without_servers_is_in_no_cluster():
    alone = Settings()
    assert (nats_servers(alone), room_key(alone), place_alone(alone), node_of(alone)) == (None, None, None, 0)


def test_a_key_alone_makes_no_cluster(key):
    alone = Settings(cluster_key=key)
    assert (nats_servers(alone), room_key(alone), place_alone(alone), node_of(alone)) == (None, None, None, 0)


def test_keys_are_the_same_for_all_that_have_the_file_and_differ_by_purpose(key, tmp_path):
    other = tmp_path / "other"
    other.write_text("another secret of many bytes")
    again = tmp_path / "again"
    again.write_bytes(key.read_bytes().strip())
    assert room_key(settings(key)) == room_key(settings(again)) != room_key(settings(other))
    assert room_key(settings(key)) != nats_servers(settings(key)).key


def test_a_file_that_is_too_long_for_a_key_is_an_error_that_names_it(tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"k" * MOST_KEY)
    assert room_key(settings(file))
    file.write_bytes(b"k" * (MOST_KEY + 1))
    for look in (room_key, nats_servers, place_alone):
        with pytest.raises(SettingsError, match=r"--cluster-key .*image: must have 4096 bytes at most"):
            look(settings(file))


def test_a_short_key_and_none_are_errors_that_name_the_file(tmp_path):
    short = tmp_path / "short"
    short.write_text("  abc \n")
    with pytest.raises(SettingsError, match="short: must have 16 bytes"):
        room_key(settings(short))
    with pytest.raises(SettingsError, match=r"nowhere: No such file"):
        room_key(settings(Path("/nowhere")))


@pytest.mark.parametrize("name", ["cluster_ca", "cluster_credentials"])
def test_other_files_that_are_missing_are_named_too(key, tmp_path, name):
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} .*gone: No such file"):
        nats_servers(settings(key, **{name: tmp_path / "gone"}))


JWT = "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n"
SEED = "-----BEGIN USER NKEY SEED-----\nSUAAAAICAMCAKBQ\n------END USER NKEY SEED------\n"


def test_credentials_with_both_their_parts_are_taken_however_long_they_are(key, tmp_path):
    file = tmp_path / "relay.creds"
    long = JWT.replace("eyJq", "e" * 20_000)
    file.write_text(f"{long}\n{SEED}")
    assert nats_servers(settings(key, cluster_credentials=file)).read_credentials() == f"{long}\n{SEED}"


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\xff\xfe\0", JWT.encode(), SEED.encode()])
def test_credentials_that_lack_a_part_are_named(key, tmp_path, content):
    file = tmp_path / "relay.creds"
    file.write_bytes(content)
    with pytest.raises(
        SettingsError, match=r"--cluster-credentials .*relay.creds: .* must have a NATS USER JWT"
    ):
        nats_servers(settings(key, cluster_credentials=file))


def test_an_authority_that_is_none_is_named(key):
    with pytest.raises(SettingsError, match=r"--cluster-ca .*key: .*NO_CERTIFICATE"):
        nats_servers(settings(key, cluster_ca=key))


def test_a_nodes_number_is_of_its_name(key):
    one, other = (node_of(settings(key, cluster_node=name)) for name in ("one", "other"))
    assert one == node_of(settings(key, cluster_node="one"))
    assert 0 < one != other < 1 << 24


def test_a_process_alone_has_its_nodes_place(key):
    place = place_alone(settings(key, cluster_node="one"))
    assert (place.number, place.count) == (0, 1)
    assert place.worker >> NODE_SHIFT == place.node == node_of(settings(key, cluster_node="one"))
