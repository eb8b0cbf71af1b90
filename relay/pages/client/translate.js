/**
 * A guest's MAC in its frames replaced by another one, and back: in the Ethernet header and where ARP, DHCP
 * and IPv6 neighbour discovery repeat it, checksums included (RFC 1624). Everything else is left as it is.
 */
const MAC_LENGTH = 6;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOL_UDP = 17;
const PROTOCOL_ICMPV6 = 58;
const ARP_SENDER = 8;
const ARP_TARGET = 18;
const DHCP_SERVER_PORT = 67;
const DHCP_CLIENT_PORT = 68;
/** From the UDP header's start: the header, then what RFC 2131 puts first. */
const DHCP_CHADDR = 8 + 28;
const DHCP_OPTIONS = 8 + 240;
const DHCP_PAD = 0;
const DHCP_END = 255;
const DHCP_CLIENT_ID = 61;
const HARDWARE_ETHERNET = 1;
/** ICMPv6 types of RFC 4861, and how long each is before its options. */
const DISCOVERY = { 133: 8, 134: 16, 135: 24, 136: 24 };
const LINK_LAYER_SOURCE = 1;
const LINK_LAYER_TARGET = 2;
/** A copy of the frame that `from` sent, as if `to` had. */
export function renameSource(frame, from, to) {
    const renamed = new Renamed(frame, from, to);
    renamed.replace(MAC_LENGTH);
    const { payload, type } = renamed;
    if (type === ETHERTYPE_ARP)
        renamed.replace(payload + ARP_SENDER);
    else if (type === ETHERTYPE_IPV4)
        renamed.dhcp(DHCP_CLIENT_PORT, DHCP_SERVER_PORT);
    else if (type === ETHERTYPE_IPV6)
        renamed.discovery();
    return renamed.bytes;
}
/** A copy of the frame that is for `from`, as if it were for `to`; those for several are for it as well. */
export function renameDestination(frame, from, to) {
    const renamed = new Renamed(frame, from, to);
    renamed.replace(0);
    const { payload, type } = renamed;
    if (type === ETHERTYPE_ARP)
        renamed.replace(payload + ARP_TARGET);
    else if (type === ETHERTYPE_IPV4)
        renamed.dhcp(DHCP_SERVER_PORT, DHCP_CLIENT_PORT);
    return renamed.bytes;
}
/** A copy of a frame in which one MAC is replaced, place by place. */
class Renamed {
    bytes;
    /** What the Ethernet header says that follows, and where, behind a VLAN tag or not. */
    type;
    payload;
    #from;
    #to;
    constructor(frame, from, to) {
        this.bytes = frame.slice();
        this.#from = from;
        this.#to = to;
        const tagged = this.#word(12) === ETHERTYPE_VLAN;
        this.type = this.#word(tagged ? 16 : 12);
        this.payload = tagged ? 18 : 14;
    }
    /** Replaces the MAC at `at`, if it is there, and adjusts the checksum that stands at `checksum`. */
    replace(at, checksum) {
        const bytes = this.bytes;
        const from = this.#from;
        const to = this.#to;
        if (from.some((byte, index) => bytes[at + index] !== byte))
            return;
        bytes.set(to, at);
        if (checksum === undefined)
            return;
        // Sums are of 16-bit words, modulo 65535: a byte counts by its place in the word.
        let sum = ~this.#word(checksum) & 0xffff;
        for (let index = 0; index < MAC_LENGTH; index++) {
            const weight = (at + index - checksum) % 2 === 0 ? 0x100 : 1;
            sum += weight * (to[index] - from[index]);
        }
        const folded = ((sum % 0xffff) + 0xffff) % 0xffff;
        bytes[checksum] = (~folded >> 8) & 0xff;
        bytes[checksum + 1] = ~folded & 0xff;
    }
    /** The client's hardware address and identifier in a DHCP message between these ports. */
    dhcp(source, destination) {
        const { bytes, payload } = this;
        const isFragment = (this.#word(payload + 6) & 0x1fff) !== 0;
        if (bytes[payload + 9] !== PROTOCOL_UDP || isFragment)
            return;
        const udp = payload + 4 * (bytes[payload] & 0x0f);
        if (this.#word(udp) !== source || this.#word(udp + 2) !== destination)
            return;
        // Zero: there is none (RFC 768).
        const checksum = this.#word(udp + 6) === 0 ? undefined : udp + 6;
        this.replace(udp + DHCP_CHADDR, checksum);
        let at = udp + DHCP_OPTIONS;
        while (at < bytes.length && bytes[at] !== DHCP_END) {
            if (bytes[at] === DHCP_PAD) {
                at++;
                continue;
            }
            const ethernet = bytes[at + 1] === 1 + MAC_LENGTH && bytes[at + 2] === HARDWARE_ETHERNET;
            if (bytes[at] === DHCP_CLIENT_ID && ethernet)
                this.replace(at + 3, checksum);
            at += 2 + (bytes[at + 1] ?? 0);
        }
    }
    /** The sender's link-layer address in the options of neighbour discovery. */
    discovery() {
        const { bytes, payload } = this;
        const icmp = payload + 40;
        const header = DISCOVERY[bytes[icmp] ?? 0];
        if (bytes[payload + 6] !== PROTOCOL_ICMPV6 || header === undefined)
            return;
        for (let at = icmp + header; at + 8 <= bytes.length; at += 8 * bytes[at + 1]) {
            if (bytes[at + 1] === 0)
                return;
            if (bytes[at] === LINK_LAYER_SOURCE || bytes[at] === LINK_LAYER_TARGET)
                this.replace(at + 2, icmp + 2);
        }
    }
    #word(at) {
        return ((this.bytes[at] ?? 0) << 8) | (this.bytes[at + 1] ?? 0);
    }
}
