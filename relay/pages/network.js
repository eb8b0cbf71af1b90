// A guest of a few lines: ARP, ping and DNS on a network interface of vmrelay-client.

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ICMP = 1;
const UDP = 17;
const DNS_PORT = 53;
const RESPONSE_CODES = ["no error", "bad query", "the server failed", "no such name", "not implemented", "refused"];

export class Guest {
  #nic;
  #listeners = new Set();
  #number = 0;

  constructor(nic) {
    this.#nic = nic;
    nic.onframe = (frame) => {
      for (const listener of this.#listeners) listener(frame, new DataView(frame.buffer, frame.byteOffset, frame.length));
    };
  }

  /** Sends a frame, and waits for one of which `read(frame, view)` gives something. */
  async #ask(frame, read, timeout = 5000) {
    let listener, timer;
    try {
      return await new Promise((resolve, reject) => {
        listener = (incoming, view) => {
          const found = read(incoming, view);
          if (found !== undefined) resolve(found);
        };
        this.#listeners.add(listener);
        timer = setTimeout(() => reject(new Error(`no answer within ${timeout / 1000} s`)), timeout);
        this.#nic.send(frame);
      });
    } finally {
      this.#listeners.delete(listener);
      clearTimeout(timer);
    }
  }

  /** The MAC address of a neighbour, six bytes. */
  resolve(ip) {
    const { mac, assigned } = this.#nic;
    const request = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...assigned.ip, 0, 0, 0, 0, 0, 0, ...ip];
    return this.#ask(ethernet([255, 255, 255, 255, 255, 255], mac, ETHERTYPE_ARP, request), (frame, view) => {
      const answers = frame.length >= 42 && view.getUint16(12) === ETHERTYPE_ARP && view.getUint16(20) === 2;
      return answers && equal(frame.subarray(28, 32), ip) ? frame.slice(22, 28) : undefined;
    });
  }

  /** Pings; resolves to milliseconds. */
  async ping(ip, mac) {
    const sequence = ++this.#number;
    const payload = Array.from({ length: 32 }, (_, at) => at);
    const message = Uint8Array.from([8, 0, 0, 0, 0x76, 0x6d, sequence >> 8, sequence & 255, ...payload]);
    setChecksum(message, 2, checksum(message));
    const sent = performance.now();
    await this.#ask(this.#packet(ICMP, ip, mac, message), (frame, view) => {
      const echo = frame.length >= 42 && view.getUint16(12) === ETHERTYPE_IPV4 && frame[23] === ICMP && frame[34] === 0;
      return echo && view.getUint16(40) === sequence ? true : undefined;
    });
    return performance.now() - sent;
  }

  /** Asks a name server for IPv4 addresses; resolves to { code, addresses, milliseconds }. */
  async lookUp(name, server, mac) {
    const id = crypto.getRandomValues(new Uint8Array(2));
    const port = 49152 + (++this.#number % 16000);
    const question = name.split(".").filter(Boolean).flatMap((label) => {
      const bytes = new TextEncoder().encode(label);
      if (bytes.length > 63) throw new Error("a name's parts have at most 63 characters");
      return [bytes.length, ...bytes];
    });
    const query = [...id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...question, 0, 0, 1, 0, 1];
    const length = 8 + query.length;
    // A UDP checksum of zero means none (RFC 768).
    const datagram = [port >> 8, port & 255, 0, DNS_PORT, length >> 8, length & 255, 0, 0, ...query];
    const sent = performance.now();
    const answer = await this.#ask(this.#packet(UDP, server, mac, datagram), (frame, view) => {
      const fits = frame.length >= 54 && view.getUint16(12) === ETHERTYPE_IPV4 && frame[23] === UDP;
      return fits && view.getUint16(36) === port && equal(frame.subarray(42, 44), id) ? frame.slice(42) : undefined;
    });
    const milliseconds = performance.now() - sent;
    const code = RESPONSE_CODES[answer[3] & 15] ?? "an error";
    return { code, addresses: addressesOf(answer, 12 + question.length + 5), milliseconds };
  }

  #packet(protocol, ip, mac, payload) {
    const length = 20 + payload.length;
    const header = [0x45, 0, length >> 8, length & 255, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    const packet = Uint8Array.from([...header, ...this.#nic.assigned.ip, ...ip, ...payload]);
    setChecksum(packet, 10, checksum(packet.subarray(0, 20)));
    return ethernet(mac, this.#nic.mac, ETHERTYPE_IPV4, packet);
  }
}

function ethernet(destination, source, type, payload) {
  return Uint8Array.from([...destination, ...source, type >> 8, type & 255, ...payload]);
}

/** The internet checksum (RFC 1071). */
function checksum(bytes) {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function setChecksum(bytes, at, sum) {
  bytes[at] = sum >> 8;
  bytes[at + 1] = sum & 255;
}

function equal(one, other) {
  return one.every((byte, at) => byte === other[at]);
}

/** IPv4 addresses in a DNS answer whose records begin at `at`. */
function addressesOf(message, at) {
  const addresses = [];
  for (let left = (message[6] << 8) | message[7]; left > 0 && at < message.length; left--) {
    // The owner's name: labels, ended by a zero or by a pointer (RFC 1035, 4.1.4).
    while (message[at] > 0 && message[at] < 0xc0) at += 1 + message[at];
    at += message[at] >= 0xc0 ? 2 : 1;
    const type = (message[at] << 8) | message[at + 1];
    const length = (message[at + 8] << 8) | message[at + 9];
    if (type === 1 && length === 4) addresses.push([...message.subarray(at + 10, at + 14)].join("."));
    at += 10 + length;
  }
  return addresses;
}
