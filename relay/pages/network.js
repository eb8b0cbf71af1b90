// A guest of a few lines on a network interface of vmrelay-client: ARP, ping, DNS, TCP's handshake, and IPv6.

import * as packets from "/packets.js";

const { ARP, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, equal, word, wordOf } = packets;

/** What an attempt to connect fails with where the other end has answered that it does not want it. */
export const REFUSED = "refused: nothing listens there";

const PATIENCE = 5000;
const AGAIN = 1000;
const DNS_PORT = 53;
const RESPONSE_CODES = ["no error", "bad query", "the server failed", "no such name", "not implemented", "refused"];
const [SYN, RST, SYN_ACK] = [0x02, 0x04, 0x12];

const BROADCAST = [255, 255, 255, 255, 255, 255];
const ALL_ROUTERS = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT] = [133, 134, 135, 136];
const [SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS, PREFIX] = [1, 2, 3];

export class Guest {
  #nic;
  #listeners = new Set();
  #number = 0;
  #linkLocal;
  #global;

  constructor(nic) {
    this.#nic = nic;
    this.#linkLocal = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...this.#interfaceId];
    nic.onframe = (frame) => {
      const found = packets.parseFrame(frame);
      if (found === undefined || this.#isAskedWhereItIs(found)) return;
      for (const listener of this.#listeners) listener(found);
    };
  }

  /** The MAC address of a neighbour, six bytes. */
  resolve(ip) {
    const { mac, assigned } = this.#nic;
    const request = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...assigned.ip, 0, 0, 0, 0, 0, 0, ...ip];
    const frame = packets.ethernet(BROADCAST, mac, ARP, request);
    return this.#ask(frame, ({ type, isReply, sender }) => (type === ARP && isReply && equal(sender.ip, ip) ? sender.mac : undefined));
  }

  /** Pings; resolves to milliseconds. */
  ping(to, mac) {
    const from = this.#addressTo(to);
    const sixth = to.length === 16;
    const [request, reply, protocol] = sixth ? [128, 129, ICMPV6] : [8, 0, ICMP];
    const sequence = ++this.#number;
    const payload = Array.from({ length: 32 }, (_, at) => at);
    const message = packets.icmp(from, to, [request, 0, 0, 0, 0x76, 0x6d, ...wordOf(sequence), ...payload]);
    return this.#timed(to, mac, protocol, message, (found) =>
      found.protocol === protocol && found.payload[0] === reply && word(found.payload, 6) === sequence,
    );
  }

  /** Opens a TCP connection and drops it at once; resolves to milliseconds until the other end agreed. */
  async connect(to, port, mac) {
    const from = this.#addressTo(to);
    const own = this.#port();
    const sequence = crypto.getRandomValues(new Uint8Array(4));
    const segment = (number, flags) =>
      packets.sealed(from, to, TCP, [...wordOf(own), ...wordOf(port), ...number, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0], 16);
    let flags;
    const milliseconds = await this.#timed(to, mac, TCP, segment(sequence, SYN), ({ protocol, from: source, payload }) => {
      if (protocol !== TCP || !equal(source, to) || word(payload, 0) !== port || word(payload, 2) !== own) return false;
      flags = payload[13];
      return true;
    });
    if ((flags & SYN_ACK) !== SYN_ACK) throw new Error(REFUSED);
    const next = new DataView(sequence.buffer);
    next.setUint32(0, next.getUint32(0) + 1);
    this.#send(to, mac, TCP, segment(sequence, RST));
    return milliseconds;
  }

  /** Asks a name server for addresses, of IPv6 where `kind` is 28; resolves to { code, addresses, milliseconds }. */
  async lookUp(name, server, mac, kind = 1) {
    const port = this.#port();
    const id = word(crypto.getRandomValues(new Uint8Array(2)), 0);
    const query = packets.question(id, name, kind);
    // A UDP checksum of zero means none (RFC 768).
    const datagram = [...wordOf(port), ...wordOf(DNS_PORT), ...wordOf(8 + query.length), 0, 0, ...query];
    let answer;
    const milliseconds = await this.#timed(server, mac, UDP, datagram, ({ type, protocol, payload }) => {
      if (type !== IPV4 || protocol !== UDP || word(payload, 2) !== port || word(payload, 8) !== id) return false;
      answer = payload.subarray(8);
      return true;
    });
    const code = RESPONSE_CODES[answer[3] & 15] ?? "an error";
    return { code, addresses: packets.addressesIn(answer, query.length, kind), milliseconds };
  }

  /**
   * Asks for a router, and takes an address of the prefix that it tells (RFC 4861 section 6.3.4, RFC 4862); resolves to
   * { router, mac, address, isDefault }: whether the router leads anywhere.
   */
  async findRouter() {
    const own = this.#linkLocal;
    const message = packets.icmp(own, ALL_ROUTERS, [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0, SOURCE_LINK_ADDRESS, 1, ...this.#nic.mac]);
    const multicast = [0x33, 0x33, ...ALL_ROUTERS.slice(12)];
    const frame = packets.ethernet(multicast, this.#nic.mac, IPV6, packets.packet(own, ALL_ROUTERS, ICMPV6, message, 255));
    const found = await this.#ask(frame, (each) => (isNeighborMessage(each, ROUTER_ADVERTISEMENT) ? each : undefined));
    const prefix = options(found.payload, 16).find(({ kind, value }) => kind === PREFIX && value[1] & 0x40)?.value;
    if (prefix === undefined) throw new Error("the router tells no prefix to take an address of");
    this.#global = [...prefix.subarray(14, 22), ...this.#interfaceId];
    return { router: found.from, mac: found.mac, address: this.#global, isDefault: word(found.payload, 6) > 0 };
  }

  /** The lower half of its IPv6 addresses (RFC 4291, appendix A). */
  get #interfaceId() {
    const [first, ...rest] = this.#nic.mac;
    return [first ^ 2, rest[0], rest[1], 0xff, 0xfe, ...rest.slice(2)];
  }

  #addressTo(to) {
    if (to.length === 4) return this.#nic.assigned.ip;
    return to[0] === 0xfe && (to[1] & 0xc0) === 0x80 ? this.#linkLocal : this.#global;
  }

  #port() {
    return 49152 + (++this.#number % 16000);
  }

  #send(to, mac, protocol, message) {
    const packet = packets.packet(this.#addressTo(to), to, protocol, message);
    this.#nic.send(packets.ethernet(mac, this.#nic.mac, to.length === 16 ? IPV6 : IPV4, packet));
  }

  /** Sends a message until what comes back fits or says that it cannot get there; resolves to milliseconds. */
  async #timed(to, mac, protocol, message, fits) {
    const packet = packets.packet(this.#addressTo(to), to, protocol, message);
    const sent = performance.now();
    const refusal = await this.#ask(packets.ethernet(mac, this.#nic.mac, to.length === 16 ? IPV6 : IPV4, packet), (found) => {
      if (found.type === ARP) return undefined;
      return fits(found) ? "" : packets.refusalOf(found, to);
    });
    if (refusal !== "") throw new Error(refusal);
    return performance.now() - sent;
  }

  /** Sends a frame, again after a while, and waits for one of which `read` gives something. */
  async #ask(frame, read) {
    let listener, timer, repeating;
    try {
      return await new Promise((resolve, reject) => {
        listener = (found) => {
          const told = read(found);
          if (told !== undefined) resolve(told);
        };
        this.#listeners.add(listener);
        timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE / 1000} s`)), PATIENCE);
        repeating = setInterval(() => this.#nic.send(frame), AGAIN);
        this.#nic.send(frame);
      });
    } finally {
      this.#listeners.delete(listener);
      clearTimeout(timer);
      clearInterval(repeating);
    }
  }

  /** Answers who asks for the MAC of one of its IPv6 addresses (RFC 4861 section 7.2.4). */
  #isAskedWhereItIs(found) {
    if (!isNeighborMessage(found, NEIGHBOR_SOLICITATION)) return false;
    const target = found.payload.subarray(8, 24);
    const own = [this.#linkLocal, this.#global].find((each) => each !== undefined && equal(target, each));
    if (own === undefined || found.from.every((byte) => byte === 0)) return true;
    const message = [NEIGHBOR_ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0, ...own, TARGET_LINK_ADDRESS, 1, ...this.#nic.mac];
    const packet = packets.packet(own, found.from, ICMPV6, packets.icmp(own, found.from, message), 255);
    this.#nic.send(packets.ethernet(found.mac, this.#nic.mac, IPV6, packet));
    return true;
  }
}

function isNeighborMessage({ type, protocol, payload }, kind) {
  return type === IPV6 && protocol === ICMPV6 && payload[0] === kind;
}

/** Options of a message of neighbour discovery (RFC 4861 section 4.6), each with its whole value. */
function options(payload, start) {
  const found = [];
  for (let at = start; at + 8 <= payload.length && payload[at + 1] > 0; at += 8 * payload[at + 1]) {
    found.push({ kind: payload[at], value: payload.subarray(at + 2, at + 8 * payload[at + 1]) });
  }
  return found;
}
