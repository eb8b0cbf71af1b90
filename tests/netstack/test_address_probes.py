from __future__ import annotations

from netstack.address_probes import MAX_PER_MAC, PROBED_FOR, AddressProbes

A, B = b"\x52\0\0\0\0\1", b"\x52\0\0\0\0\2"
ADDRESS = bytes((10, 0, 2, 9))


def test_a_probe_counts_for_a_while_from_the_last_one_on():
    probes = AddressProbes()
    assert probes.prober_of(ADDRESS, 0.0) == b""
    for now in (0.0, 2.0):
        probes.begin(A, ADDRESS, now)
    assert probes.prober_of(ADDRESS, 2.0 + PROBED_FOR - 0.1) == A
    assert probes.prober_of(ADDRESS, 2.0 + PROBED_FOR) == b""
    assert len(probes) == 1


def test_an_address_is_about_to_be_one_guests_only():
    probes = AddressProbes()
    probes.begin(A, ADDRESS, 0.0)
    probes.begin(B, ADDRESS, 1.0)
    assert probes.prober_of(ADDRESS, 1.0) == B
    probes.forget(A)
    assert probes.prober_of(ADDRESS, 1.0) == B
    probes.forget(B)
    assert (probes.prober_of(ADDRESS, 1.0), len(probes)) == (b"", 0)


def test_of_many_probes_of_one_guest_the_latest_count():
    probes = AddressProbes()
    addresses = [bytes((10, 0, 2, number)) for number in range(3 * MAX_PER_MAC)]
    probes.begin(B, ADDRESS, 0.0)
    for address in addresses:
        if address != ADDRESS:
            probes.begin(A, address, 0.0)
    assert [address for address in addresses if probes.prober_of(address, 0.0) == A] == addresses[
        -MAX_PER_MAC:
    ]
    assert probes.prober_of(ADDRESS, 0.0) == B
    assert len(probes) == MAX_PER_MAC + 1
