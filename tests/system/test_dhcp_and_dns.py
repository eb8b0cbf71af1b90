"""DHCP and DNS of the gateway, used by the programs that guests have: udhcpc, dig and a kernel; a real name
server (dnsmasq) is outside.

    guests ── relay ── cable ── name server (10.99.0.2)
"""

from __future__ import annotations

import contextlib
import re
import sys

import pytest
from kernel_guest import KernelGuest, mac_of
from namespaces import Namespace, connect
from processes import Relay

GATEWAY = "10.0.2.2"
NAME_SERVER = "10.99.0.2"
IP_AND_UDP = 28
FIXED = ("52:54:00:f1:00:01", "10.0.2.50", "printer")

UDHCPC_SCRIPT = """#!/bin/sh
[ "$1" = deconfig ] && exit
env | sort > "{directory}/$1.tmp" && mv "{directory}/$1.tmp" "{directory}/$1"
ip address replace "$ip/$mask" dev "$interface"
ip link set "$interface" mtu "$mtu" up
ip route replace default via "$router"
"""


class DhcpGuest(KernelGuest):
    """A kernel whose NIC is only plugged in: all else is up to its DHCP client."""

    def __init__(self, role, relay, relay_namespace, directory, *options, raw=False):
        self.namespace = Namespace(role)
        url = relay.url + ("?encap=raw" if raw else "")
        self._attached = relay_namespace.start(
            *(sys.executable, "-m", "relay.main", "attach", "--tap", self.device),
            *("--netns", self.namespace.name, "--cert-hash", relay.hash, *options, url),
        )
        found = self._attached.wait_for(r"attached to \S+ as ([0-9a-f:]+)(?:, address ([\d.]+)/\d+)?")
        self.mac, self.assigned = found.groups()
        self.directory = directory / role
        self.directory.mkdir()
        self.script = self.directory / "script"
        self.script.write_text(UDHCPC_SCRIPT.format(directory=self.directory))
        self.script.chmod(0o755)
        self.run("ip", "link", "set", self.device, "up")

    def dhcp(self, *options):
        """Run udhcpc until it has a lease; give what it was told."""
        self.run(*self.udhcpc, "-q", "-n", "-T", 1, "-t", 10, *options)
        return self.told("bound")

    @property
    def udhcpc(self):
        return ("busybox", "udhcpc", "-f", "-i", self.device, "-s", self.script, "-O", "mtu")

    def told(self, event):
        lines = (self.directory / event).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


def dig(guest, *question, server=GATEWAY):
    """Ask with dig; give its status and its answers, sorted."""
    said = guest.run("dig", f"@{server}", "+tries=1", "+time=10", *question).stdout
    status = re.search(r"status: (\w+)", said)[1]
    answers = re.search(r"ANSWER SECTION:\n(.*?)\n\n", said + "\n\n", re.DOTALL)
    return status, sorted(line.split(maxsplit=4)[4] for line in answers[1].splitlines()) if answers else []


@pytest.fixture(scope="module")
def name_server(relay_namespace):
    outside = Namespace("names")
    connect(relay_namespace, "10.99.0.1/24", outside, f"{NAME_SERVER}/24")
    records = (
        "www.example,93.184.215.14,2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "rebound.example,192.168.1.1",
        "neighbour.example,10.0.2.2",
        f"allowed.example,{NAME_SERVER}",
    )
    dnsmasq = outside.start(
        *(
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
        ),
        *("--bind-interfaces", f"--listen-address={NAME_SERVER}", "--pid-file=", "--local=/example/"),
        *("--log-queries", "--log-facility=-", "--local-ttl=300"),
        *(f"--host-record={record}" for record in records),
        *(f"--txt-record=large.example,{n:0200}" for n in range(12)),
        *(f"--txt-record=medium.example,{n:0215}" for n in range(5)),
    )
    dnsmasq.wait_for("started")
    yield dnsmasq
    dnsmasq.stop()
    outside.delete()


@pytest.fixture(scope="module")
def relay(relay_namespace, name_server):
    relay = Relay(
        *("--allow-cidr", "10.99.0.0/24", "--host-access", "--upstream-dns", NAME_SERVER),
        *("--static-lease", "=".join(FIXED), "--lease-time", 30),
        *("--dhcp-search", "corp.example,lab.corp.example", "--dhcp-ntp", "192.0.2.1,192.0.2.2"),
        *("--dhcp-route", "192.168.77.0/24=10.0.2.50", "--dhcp-wpad", "http://10.0.2.50/wpad.dat"),
        *("--dhcp-boot", "bios=pxelinux.0@10.0.2.50", "--dhcp-boot", "efi64=ipxe.efi@10.0.2.50"),
        before=relay_namespace.prefix,
    )
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture
def plug_in(relay, relay_namespace, tmp_path):
    """Plug guests into the relay, and out at the end."""
    guests = []

    def plug(role, *options, **more):
        if "--mac" not in options:
            options = ("--mac", mac_of(role), *options)
        guests.append(DhcpGuest(role, relay, relay_namespace, tmp_path, *options, **more))
        return guests[-1]

    yield plug
    for guest in guests:
        guest.leave()


@pytest.fixture(scope="module")
def guest(relay, relay_namespace):
    guest = KernelGuest("asks", relay, relay_namespace)
    yield guest
    guest.leave()


# -- DHCP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True], ids=["framed", "raw"])
def test_a_guest_with_nothing_configured_but_dhcp(plug_in, raw):
    guest = plug_in("dhcp", raw=raw)
    lease = guest.dhcp("-x", "hostname:browser")
    assert {
        key: lease[key] for key in ("router", "subnet", "dns", "domain", "lease", "serverid", "broadcast")
    } == {
        "router": GATEWAY,
        "subnet": "255.255.255.0",
        "dns": GATEWAY,
        "domain": "vm.internal",
        "lease": "30",
        "serverid": GATEWAY,
        "broadcast": "10.0.2.255",
    }
    if not raw:
        assert lease["ip"] == guest.assigned
    mtu = int(lease["mtu"])
    assert 1280 <= mtu <= 1500 or raw
    full = mtu - 28
    assert guest.ping(GATEWAY, "-M", "do", "-s", full)[0] == 5
    assert dig(guest, "www.example", "A", server=lease["dns"]) == ("NOERROR", ["93.184.215.14"])
    assert dig(guest, "browser.vm.internal", "A") == ("NOERROR", [lease["ip"]])
    assert dig(guest, "-x", lease["ip"]) == ("NOERROR", ["browser.vm.internal."])


def test_a_lease_is_renewed(plug_in):
    guest = plug_in("renews")
    client = guest.start(*guest.udhcpc)
    client.wait_for(r"lease of \S+ obtained")
    client.signal(10)  # SIGUSR1: renew now
    client.wait_for(r"lease of \S+ obtained", count=2)
    client.stop()
    assert guest.told("renew")["ip"] == guest.assigned


def test_an_address_that_it_had_is_given_again_and_anothers_is_not(plug_in):
    guest, other = plug_in("returning"), plug_in("stubborn")
    assert guest.dhcp("-r", "10.0.2.200")["ip"] == "10.0.2.200"
    assert other.dhcp("-r", "10.0.2.200")["ip"] == other.assigned


def test_a_fixed_lease(plug_in):
    mac, address, name = FIXED
    guest = plug_in("fixed", "--mac", mac)
    assert guest.assigned == guest.dhcp()["ip"] == address
    assert dig(guest, f"{name}.vm.internal", "A") == ("NOERROR", [address])


def test_two_clients_behind_one_mac_are_found_at_their_own_addresses(plug_in):
    guest = plug_in("shared")
    own = guest.dhcp("-C", "-x", "0x3d:006f6e65", "-x", "hostname:one")
    further = guest.dhcp("-C", "-x", "0x3d:0074776f", "-x", "hostname:two")
    assert own["ip"] == guest.assigned != further["ip"]
    assert guest.dhcp("-C", "-x", "0x3d:006f6e65")["ip"] == own["ip"]
    for name, lease in (("one", own), ("two", further)):
        assert guest.ping(GATEWAY, "-I", lease["ip"])[0] == 5
        assert dig(guest, f"{name}.vm.internal", "A") == ("NOERROR", [lease["ip"]])


def test_a_machine_keeps_its_address_from_its_boot_loader_to_its_system(plug_in):
    guest = plug_in("boots")
    vendor = "PXEClient:Arch:00007:UNDI:003016"
    firmware = ("-C", "-x", "0x3d:00" + "cd" * 16, "-x", "0x5d:0007", "-V", vendor)
    system = ("-C", "-x", "0x3d:ff000000010004" + "ab" * 16)
    for options in (firmware, (), ("-C",), system, firmware, system):
        assert guest.dhcp(*options)["ip"] == guest.assigned


@pytest.mark.parametrize(("number", "file"), [("0000", "pxelinux.0"), ("0009", "ipxe.efi")])
def test_what_dhcp_tells_besides(plug_in, number, file):
    guest = plug_in("besides")
    names = ("search", "ntpsrv", "staticroutes", "wpad", "bootfile", "tftp")
    asked = [word for name in names for word in ("-O", name)]
    lease = guest.dhcp(*asked, "-x", f"0x5d:{number}")
    assert lease["search"] == "corp.example lab.corp.example"
    assert lease["ntpsrv"] == "192.0.2.1 192.0.2.2"
    assert lease["staticroutes"] == f"192.168.77.0/24 10.0.2.50 0.0.0.0/0 {GATEWAY}"
    assert lease["wpad"] == "http://10.0.2.50/wpad.dat"
    assert (lease["bootfile"], lease["boot_file"], lease["tftp"]) == (file, file, "10.0.2.50")
    assert lease["siaddr"] == "10.0.2.50"
    assert not guest.dhcp().keys() & {"search", "staticroutes", "wpad", "tftp"}


def serve_dhcp(guest, *options):
    """Start dnsmasq in a guest as a DHCP server."""
    server = guest.start(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"),
        *("--pid-file=", f"--interface={guest.device}", "--bind-dynamic", "--dhcp-authoritative"),
        *("--no-ping", "--dhcp-range=10.0.2.100,10.0.2.200", "--log-dhcp", "--log-facility=-"),
        *("--leasefile-ro", *options),
    )
    server.wait_for("started")
    return server


def test_without_dhcp_a_guest_may_serve_it(relay_namespace, tmp_path):
    with contextlib.ExitStack() as stack:
        relay = Relay("--no-dhcp", before=relay_namespace.prefix)
        stack.callback(relay.stop)
        host = KernelGuest("serves", relay, relay_namespace)
        stack.callback(host.leave)
        guest = DhcpGuest("served", relay, relay_namespace, tmp_path)
        stack.callback(guest.leave)
        done = guest.run(*guest.udhcpc, "-q", "-n", "-T", 1, "-t", 2, check=False)
        assert "no lease" in done.stdout + done.stderr
        told = (f"--dhcp-option=option:router,{GATEWAY}", "--dhcp-option=option:mtu,1280")
        stack.callback(serve_dhcp(host, *told).stop)
        lease = guest.dhcp()
        assert lease["serverid"] == host.address
        assert guest.ping(GATEWAY, "-I", lease["ip"])[0] == 5


def test_a_guest_that_serves_dhcp_is_not_heard(plug_in, relay):
    rogue, victim = plug_in("rogue"), plug_in("victim")
    rogue.dhcp()
    before = relay.counters()["switch.drop.rogue_dhcp"]
    server = serve_dhcp(rogue)
    assert victim.dhcp("-B")["ip"] == victim.assigned
    server.wait_for("DHCPOFFER")
    server.stop()
    assert relay.counters()["switch.drop.rogue_dhcp"] > before


# -- DNS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["10.0.2.2", "10.0.2.3"])
@pytest.mark.parametrize("by", ["+notcp", "+tcp"])
def test_names_outside(guest, server, by):
    assert dig(guest, by, "www.example", "A", server=server) == ("NOERROR", ["93.184.215.14"])
    assert dig(guest, by, "www.example", "AAAA", server=server) == (
        "NOERROR",
        ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    )
    assert dig(guest, by, "missing.example", "A", server=server) == ("NXDOMAIN", [])


def test_names_of_the_lan(guest):
    assert dig(guest, "gateway.vm.internal", "A") == ("NOERROR", [GATEWAY])
    assert dig(guest, "host.vm.internal", "A") == ("NOERROR", ["10.0.2.4"])
    assert dig(guest, "-x", GATEWAY) == ("NOERROR", ["gateway.vm.internal."])
    assert dig(guest, "nobody.vm.internal", "A") == ("NXDOMAIN", [])


def test_names_of_the_lan_never_leave_it(guest, name_server):
    dig(guest, "secret.vm.internal", "A")
    dig(guest, "-x", "192.168.77.7")
    dig(guest, "end.example", "A")
    name_server.wait_for(r"query\[A\] end\.example")
    assert not re.search(r"query\[\w+\] \S*(vm\.internal|in-addr\.arpa)", name_server.output)


def test_an_answer_is_asked_for_once_in_its_lifetime(guest, name_server):
    for _ in range(3):
        dig(guest, "allowed.example", "A")
    assert len(re.findall(r"query\[A\] allowed\.example", name_server.output)) == 1


def test_private_addresses_do_not_come_from_outside(guest):
    assert dig(guest, "rebound.example", "A") == ("NOERROR", [])
    assert dig(guest, "neighbour.example", "A") == ("NOERROR", [])
    assert dig(guest, "allowed.example", "A") == ("NOERROR", [NAME_SERVER]), "guests may reach it"


def test_an_answer_too_large_for_udp_is_fetched_by_tcp(guest):
    status, answers = dig(guest, "large.example", "TXT")
    assert (status, len(answers)) == ("NOERROR", 12)
    assert "Truncated" in guest.run("dig", f"@{GATEWAY}", "large.example", "TXT").stdout


@pytest.mark.parametrize("name", ["medium.example", "large.example"])
def test_over_a_narrow_raw_session_an_answer_is_cut_to_its_mtu_and_is_whole_over_tcp(guest, plug_in, name):
    """The medium one fits a datagram as EDNS allows it, and the MTU of sessions that are framed."""
    narrow = plug_in("narrow", raw=True)
    mtu = int(narrow.dhcp()["mtu"])
    question = ("dig", f"@{GATEWAY}", "+bufsize=1232", name, "TXT")
    cut = narrow.run(*question, "+ignore").stdout
    assert re.search(r"flags:.* tc\b", cut), cut
    assert int(re.search(r"MSG SIZE +rcvd: (\d+)", cut)[1]) + IP_AND_UDP <= mtu
    whole = narrow.run(*question).stdout
    assert "Truncated, retrying in TCP mode" in whole
    assert not re.search(r"flags:.* tc\b", whole)
    answers = dig(guest, "+tcp", name, "TXT")
    assert len(answers[1]) >= 5
    assert dig(narrow, name, "TXT") == answers
    assert ("Truncated" in guest.run(*question).stdout) == (name == "large.example")


def test_several_questions_on_one_connection(guest):
    said = guest.run(
        "dig", f"@{GATEWAY}", "+tcp", "+keepopen", "+short", "www.example", "gateway.vm.internal"
    )
    assert said.stdout.split() == ["93.184.215.14", GATEWAY]


def test_without_a_name_server_local_names_still_work(relay_namespace):
    relay = Relay("--upstream-dns", "127.0.0.1:9", before=relay_namespace.prefix)
    guest = KernelGuest("offline", relay, relay_namespace)
    local, outside = dig(guest, "gateway.vm.internal", "A"), dig(guest, "www.example", "A")
    guest.leave()
    relay.stop()
    assert (local, outside) == (("NOERROR", [GATEWAY]), ("SERVFAIL", []))
