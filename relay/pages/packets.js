// Frames of a guest of a few lines: what stands in one, and how one is made. Addresses are arrays of bytes, and those of
// IPv4 and IPv6 tell themselves apart by their length.

export const [ARP, IPV4, IPV6] = [0x0806, 0x0800, 0x86dd];
export const [ICMP, TCP, UDP, ICMPV6] = [1, 6, 17, 58];

/** What stands in a frame; undefined for what is neither ARP nor IP. */
export function parseFrame(frame) {
  if (frame.length < 14) return undefined;
  const type = (frame[12] << 8) | frame[13];
  const mac = frame.slice(6, 12);
  const body = frame.subarray(14);
  if (type === ARP && body.length >= 28) {
    return { type, mac, isReply: body[7] === 2, sender: { mac: body.slice(8, 14), ip: body.slice(14, 18) } };
  }
  if (type === IPV4 && body.length >= 20) {
    const [header, end] = [4 * (body[0] & 15), word(body, 2)];
    return { type, mac, protocol: body[9], from: body.slice(12, 16), to: body.slice(16, 20), payload: body.slice(header, end) };
  }
  if (type === IPV6 && body.length >= 40) {
    const payload = body.slice(40, 40 + word(body, 4));
    return { type, mac, protocol: body[6], from: body.slice(8, 24), to: body.slice(24, 40), payload };
  }
  return undefined;
}

export function ethernet(destination, source, type, payload) {
  return Uint8Array.from([...destination, ...source, ...wordOf(type), ...payload]);
}

/** An IP packet. */
export function packet(from, to, protocol, payload, hops = 64) {
  if (from.length === 16) {
    return Uint8Array.from([0x60, 0, 0, 0, ...wordOf(payload.length), protocol, hops, ...from, ...to, ...payload]);
  }
  const made = Uint8Array.from([0x45, 0, ...wordOf(20 + payload.length), 0, 0, 0x40, 0, hops, protocol, 0, 0, ...from, ...to, ...payload]);
  made.set(wordOf(checksum(made.subarray(0, 20))), 10);
  return made;
}

/** Sets a checksum that covers addresses too (RFC 9293 section 3.1, RFC 8200 section 8.1) at an offset. */
export function sealed(from, to, protocol, message, at) {
  const length = message.length;
  const pseudo = [...from, ...to, ...(from.length === 16 ? [0, 0, ...wordOf(length), 0, 0, 0, protocol] : [0, protocol, ...wordOf(length)])];
  const made = Uint8Array.from(message);
  made.set(wordOf(checksum([...pseudo, ...made])), at);
  return made;
}

/** An echo request, or in ICMPv6 any message of that family. */
export function icmp(from, to, message) {
  if (from.length === 16) return sealed(from, to, ICMPV6, message, 2);
  const made = Uint8Array.from(message);
  made.set(wordOf(checksum(made)), 2);
  return made;
}

/** A question for the addresses of a name (RFC 1035 section 4.1); `kind` is 1 (A) or 28 (AAAA). */
export function question(id, name, kind) {
  const labels = name.split(".").filter(Boolean).flatMap((label) => {
    const bytes = new TextEncoder().encode(label);
    if (bytes.length > 63) throw new Error("a name's parts have at most 63 characters");
    return [bytes.length, ...bytes];
  });
  return [...wordOf(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, kind, 0, 1];
}

/** Addresses of one kind in an answer to a question of `asked` bytes. */
export function addressesIn(message, asked, kind) {
  const addresses = [];
  let at = asked;
  for (let left = word(message, 6); left > 0 && at < message.length; left--) {
    // The owner's name: labels, ended by a zero or by a pointer (RFC 1035 section 4.1.4).
    while (message[at] > 0 && message[at] < 0xc0) at += 1 + message[at];
    at += message[at] >= 0xc0 ? 2 : 1;
    const length = word(message, at + 8);
    if (word(message, at) === kind) addresses.push(message.slice(at + 10, at + 10 + length));
    at += 10 + length;
  }
  return addresses;
}

/** Why a packet to `to` got no further, from an ICMP error (RFC 792, RFC 4443 section 3.1); undefined for all else. */
export function refusalOf({ protocol, payload }, to) {
  const sixth = to.length === 16;
  const isError = sixth ? protocol === ICMPV6 && payload[0] === 1 : protocol === ICMP && payload[0] === 3;
  const at = 8 + (sixth ? 24 : 16);
  if (!isError || !equal(payload.subarray(at, at + to.length), to)) return undefined;
  return (sixth ? UNREACHABLE_V6 : UNREACHABLE_V4)[payload[1]] ?? "it cannot be reached";
}

const FORBIDDEN = "the relay's rules forbid it";
const UNREACHABLE_V4 = { 0: "there is no route to it", 1: "the host is not there", 3: "nothing listens there", 9: FORBIDDEN, 10: FORBIDDEN, 13: FORBIDDEN };
const UNREACHABLE_V6 = { 0: "there is no route to it", 1: FORBIDDEN, 3: "the host is not there", 4: "nothing listens there" };

/** The internet checksum (RFC 1071). */
function checksum(bytes) {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

export const word = (bytes, at) => (bytes[at] << 8) | bytes[at + 1];
export const wordOf = (number) => [(number >> 8) & 255, number & 255];
export const equal = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

/** "10.0.2.2" or "fd00::2" (RFC 5952). */
export function addressText(bytes) {
  if (bytes.length === 4) return [...bytes].join(".");
  const words = Array.from({ length: 8 }, (_, at) => word(bytes, 2 * at).toString(16)).join(":");
  const zeros = [...words.matchAll(/\b0(:0)+\b/g)].sort(([one], [other]) => other.length - one.length)[0];
  if (zeros === undefined) return words;
  const [before, after] = [words.slice(0, zeros.index), words.slice(zeros.index + zeros[0].length)];
  return `${before.replace(/:$/, "")}::${after.replace(/^:/, "")}`;
}

export const macText = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");

/** An IPv4 address that is written as one; undefined for a name. */
export function addressOf(text) {
  const parts = text.split(".").map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : NaN));
  return parts.length === 4 && parts.every((part) => part <= 255) ? Uint8Array.from(parts) : undefined;
}
