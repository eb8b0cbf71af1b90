from __future__ import annotations

import pytest

from relay.settings import SettingsError, resolve

LAB = {"network": "172.20.0.0/16"}


def settings(**values):
    return resolve({}, {f"VMRELAY_{name.upper()}": text for name, text in values.items()})


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"host_access": "1", "internet": "0"}, "--host-access needs a way out, which --no-internet"),
        (
            {"internet": "0", "allow_cidr": "192.168.1.0/24"},
            "--allow-cidr needs a way out, which --no-internet takes away",
        ),
        ({"internet": "0", "allow_smtp": "1"}, "--allow-smtp needs a way out, which --no-internet"),
        (
            {"internet": "0", "upstream_dns": "192.0.2.53"},
            "--upstream-dns needs a way out, which --no-internet takes away",
        ),
        ({"internet": "0", "dns_allow_private": "lan.example"}, "--dns-allow-private needs a way out, which"),
        ({"dhcp": "0", "dhcp_wpad": "http://a/"}, "--dhcp-wpad needs DHCP, which --no-dhcp takes away"),
        ({"dhcp_ntp": "10.0.2.4"}, "--dhcp-ntp: 10.0.2.4 is this machine, which needs --host-access"),
        (LAB | {"dhcp_ntp": "172.20.0.4"}, "--dhcp-ntp: 172.20.0.4 is this machine, which needs"),
        (LAB | {"dns": "172.20.0.4"}, "--dns: 172.20.0.4 is this machine, which needs --host-access"),
        (LAB | {"dns": "172.20.255.255"}, "--dns: 172.20.255.255 is nobody's address in 172.20.0.0/16"),
        (
            LAB | {"dns": "10.0.2.53"},
            "--dns: 10.0.2.53 is not in 172.20.0.0/16, and guests may not reach it: --allow-cidr",
        ),
        (
            {"dns": "9.9.9.9", "deny_cidr": "9.0.0.0/8"},
            "--dns: 9.9.9.9 is not in 10.0.2.0/24, and guests may not reach it: --deny-cidr",
        ),
        ({"internet": "0", "dns": "9.9.9.9"}, "--dns needs a way out, which --no-internet takes away"),
        # A guest that is told so asks itself, whatever it may reach.
        *(
            (
                LAB | extra | {name: f"{before}{address}"},
                f"--{name.replace('_', '-')}: {address} is each guest itself; this machine is 172.20.0.4",
            )
            for name, before in (("dns", ""), ("dhcp_ntp", ""), ("dhcp_boot", "file@"))
            for address, extra in (
                ("127.0.0.1", {}),
                ("127.0.0.53", {"allow_cidr": "127.0.0.0/8"}),
                ("127.0.0.1", {"host_access": "1"}),
            )
        ),
        *(
            ({name: f"{before}{address}"}, f"--{name.replace('_', '-')}: {address} is no")
            for name, before in (("dns", ""), ("dhcp_ntp", ""), ("dhcp_boot", "file@"))
            for address in ("224.0.1.1", "255.255.255.255", "10.0.2.255")
        ),
        ({"dns": "0.0.0.0", "allow_cidr": "0.0.0.0"}, "--dns: 0.0.0.0 is no server's address"),
        ({"dhcp_ntp": "192.0.2.1,0.0.0.0"}, "--dhcp-ntp: 0.0.0.0 is no server's address"),
        (
            LAB | {"dhcp_route": "10.1.0.0/16=10.0.2.15"},
            "--dhcp-route: 10.0.2.15 is no router for guests of 172.20.0.0/16",
        ),
        (LAB | {"allow_cidr": "172.20.9.0/24"}, "--allow-cidr: 172.20.9.0/24 is inside 172.20.0.0/16"),
        (LAB | {"allow_cidr": "172.20.0.0/16"}, "--allow-cidr: 172.20.0.0/16 is inside 172.20.0.0/16"),
        ({"allow_cidr": "fd76:6d72:656c:6179::7"}, "--allow-cidr: fd76:6d72:656c:6179::7/128 is inside"),
        (
            {"ipv6": "0", "forward": "tcp:[::1]:80:web:80,transparent"},
            "--forward: tcp:[::1]:80:web:80,transparent needs IPv6 on the LAN",
        ),
        *(
            (
                LAB | {"static_lease": f"52:54:00:00:00:01={address}"},
                f"--static-lease: {address} is not an address for a guest of 172.20.0.0/16",
            )
            for address in ("172.20.0.2", "172.20.0.3", "172.20.0.4", "172.20.0.0", "172.20.255.255")
        ),
        (
            {"static_lease": "52-54-00-12-34-56=10.0.2.50"},
            "--static-lease: 52:54:00:12:34:56 is the gateway's MAC, and no guest's: a QEMU machine",
        ),
        *(
            (
                LAB | {"forward": f"tcp::8080:{guest}:80"},
                f"--forward: tcp:127.0.0.1:8080:{guest}:80 does not lead to a guest of 172.20.0.0/16",
            )
            for guest in (
                *("172.20.0.2", "172.20.0.3", "172.20.0.4", "172.20.255.255", "172.20.0.0", "10.0.2.15"),
                *("gateway", "dns", "host", "52:54:00:12:34:56", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"),
            )
        ),
    ],
)
def test_what_cannot_be_had_together_is_one_line(values, complaint):
    with pytest.raises(SettingsError) as refused:
        settings(**values)
    assert str(refused.value).startswith(complaint)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        LAB | {"host_access": "1", "dhcp_ntp": "172.20.0.4", "dns": "172.20.0.4"},
        LAB | {"static_lease": "52:54:00:00:00:01=172.20.255.254", "forward": "udp::53:172.20.0.1:53"},
        LAB | {"dhcp_route": "10.1.0.0/16=172.20.200.1", "dns": "9.9.9.9"},
        {"dns": "192.168.1.1", "allow_cidr": "192.168.1.0/24"},
        {"dns": "192.168.1.1", "dhcp_route": "192.168.0.0/16=10.0.2.15", "internet": "0"},
        {"dns": "10.0.2.53", "internet": "0"},
        {"dhcp_boot": "http://127.0.0.1/ipxe.efi", "dhcp_ntp": "10.0.2.15,192.0.2.1"},
        # What is wider than the LAN has other hosts too.
        LAB | {"allow_cidr": "172.16.0.0/12,10.0.2.0/24"},
        {"ipv6": "0", "allow_cidr": "fd76:6d72:656c:6179::/64"},
        # Forwards lead in.
        {"internet": "0", "forward": "tcp::8080:web:80", "deny_cidr": "192.0.2.0/24"},
        {"network": "192.168.7.8/29", "forward": "tcp::8080:192.168.7.9:80,tcp::8081:52:54:00:00:00:01:80"},
    ],
)
def test_what_can_be_had_together_is_not_refused(values):
    assert settings(**values)
