/**
 * What travels in datagrams and messages: control messages (00 + JSON), frames (01 + frame) and chunks of
 * frames (02, id u16 big-endian, index u8, total u8, payload). Pure functions and small machines; time is a
 * parameter.
 */

export const CONTROL = 0;
export const FRAME = 1;
export const CHUNK = 2;

const CHUNK_HEADER = 5;
const CHUNK_PAYLOAD = 900;
/** Frames up to this length fit one datagram on every path (QUIC starts with 1,200 bytes). */
const SAFE_FRAME = 950;

/** An Ethernet header is 14 bytes; the largest frame has a VLAN tag and 1,500 bytes of payload. */
export const MIN_FRAME = 14;
export const MAX_FRAME = 1522;

/** Milliseconds after which an incomplete frame is given up: whoever sent it has sent it again by then. */
const REASSEMBLY_TIME = 5000;
/** URLs of machines that a relay is listened to for, and characters of each. */
const MAX_URLS = 8;
const MAX_URL = 300;
/** Incomplete frames at a time; more are a flood. */
const MAX_PARTIAL = 64;

/** One address of four bytes, as numbers. */
export type Address = readonly [number, number, number, number];

/** The address that the relay gave this network card. */
export interface Assigned {
  readonly ip: Address;
  readonly gateway: Address;
  readonly netmask: Address;
  readonly dns: Address;
  /** Largest IP packet, in bytes. */
  readonly mtu: number;
  /** Name of the LAN: that of the URL, `/room/NAME`. */
  readonly room: string;
}

export type ControlMessage =
  | { type: "Assigned"; assigned: Assigned; resume: string; urls: readonly string[] }
  | { type: "HeartbeatAck" }
  | { type: "Draining"; seconds: number | undefined }
  | { type: "Error"; message: string }
  | { type: "Other" };

/** `00` and the message as compact JSON. */
export function encodeControl(message: { type: string; [field: string]: unknown }): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(message));
  const datagram = new Uint8Array(1 + text.length);
  datagram[0] = CONTROL;
  datagram.set(text, 1);
  return datagram;
}

/** Reads a control message; undefined when it is malformed, which is as good as lost. */
export function parseControl(datagram: Uint8Array): ControlMessage | undefined {
  let fields: Record<string, unknown>;
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(datagram.subarray(1)));
    if (typeof value !== "object" || value === null) return undefined;
    fields = value as Record<string, unknown>;
  } catch {
    return undefined;
  }
  switch (fields["type"]) {
    case "Assigned": {
      const [ip, gateway, netmask, dns] = ["ip", "gateway", "netmask", "dns"].map((name) => address(fields[name]));
      if (!ip || !gateway || !netmask || !dns) return undefined;
      const mtu = fields["mtu"];
      const usable = typeof mtu === "number" && Number.isInteger(mtu) && mtu >= 576 && mtu <= 1500;
      const resume = typeof fields["resume"] === "string" ? fields["resume"] : "";
      const room = typeof fields["room"] === "string" ? fields["room"] : "default";
      const told: readonly unknown[] = Array.isArray(fields["urls"]) ? fields["urls"].slice(0, MAX_URLS) : [];
      const urls = told.filter((url): url is string => typeof url === "string" && url.length <= MAX_URL);
      return { type: "Assigned", assigned: { ip, gateway, netmask, dns, mtu: usable ? mtu : 1500, room }, resume, urls };
    }
    case "HeartbeatAck":
      return { type: "HeartbeatAck" };
    case "Draining": {
      const seconds = fields["seconds"];
      return { type: "Draining", seconds: typeof seconds === "number" && seconds >= 0 ? seconds : undefined };
    }
    case "Error":
      return { type: "Error", message: String(fields["message"] ?? "") };
    default:
      return { type: "Other" };
  }
}

function address(value: unknown): Address | undefined {
  const four =
    Array.isArray(value) &&
    value.length === 4 &&
    value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255);
  return four ? (value as unknown as Address) : undefined;
}

/** Puts frames into datagrams; counts chunk ids. */
export class Chunker {
  #nextId = 0;

  /** Datagrams for a frame; `whole` is how long a frame may be that is sent in one. */
  wrap(frame: Uint8Array, whole: number = SAFE_FRAME): Uint8Array[] {
    if (frame.length <= whole) {
      const datagram = new Uint8Array(1 + frame.length);
      datagram[0] = FRAME;
      datagram.set(frame, 1);
      return [datagram];
    }
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    const total = Math.ceil(frame.length / CHUNK_PAYLOAD);
    return Array.from({ length: total }, (_, index) => {
      const piece = frame.subarray(index * CHUNK_PAYLOAD, (index + 1) * CHUNK_PAYLOAD);
      const datagram = new Uint8Array(CHUNK_HEADER + piece.length);
      datagram.set([CHUNK, id >> 8, id & 0xff, index, total]);
      datagram.set(piece, CHUNK_HEADER);
      return datagram;
    });
  }
}

interface Partial {
  readonly since: number;
  readonly total: number;
  readonly pieces: Map<number, Uint8Array>;
  length: number;
}

/** Puts chunks together, in any order and with duplicates, within bounds of memory and time. */
export class Reassembler {
  readonly #partial = new Map<number, Partial>();

  /** Takes a chunk's datagram; returns the frame that it completes. `now` is in milliseconds. */
  accept(datagram: Uint8Array, now: number): Uint8Array | undefined {
    if (datagram.length <= CHUNK_HEADER) return undefined;
    const [, high = 0, low = 0, index = 0, total = 0] = datagram;
    if (index >= total) return undefined;
    const id = (high << 8) | low;
    let partial = this.#partial.get(id);
    if (partial === undefined || partial.total !== total || now - partial.since >= REASSEMBLY_TIME) {
      this.#partial.delete(id);
      this.#makeRoom(now);
      partial = { since: now, total, pieces: new Map(), length: 0 };
      this.#partial.set(id, partial);
    }
    if (partial.pieces.has(index)) return undefined;
    // A copy: the datagram may be a view of a buffer that is used again.
    partial.pieces.set(index, datagram.slice(CHUNK_HEADER));
    partial.length += datagram.length - CHUNK_HEADER;
    if (partial.length > MAX_FRAME) {
      this.#partial.delete(id);
      return undefined;
    }
    if (partial.pieces.size < total) return undefined;
    this.#partial.delete(id);
    const frame = new Uint8Array(partial.length);
    let at = 0;
    for (let piece = 0; piece < total; piece++) {
      const bytes = partial.pieces.get(piece)!;
      frame.set(bytes, at);
      at += bytes.length;
    }
    return frame;
  }

  /** Incomplete frames at present. */
  get size(): number {
    return this.#partial.size;
  }

  #makeRoom(now: number): void {
    for (const [id, { since }] of this.#partial) {
      // In order of age: the first that is young enough ends the search.
      if (this.#partial.size < MAX_PARTIAL && now - since < REASSEMBLY_TIME) break;
      this.#partial.delete(id);
    }
  }
}
