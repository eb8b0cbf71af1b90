import { describe, expect, test } from "vitest";
import { renameDestination, renameSource } from "../src/translate.js";

const GUEST = [0x02, 0x11, 0x22, 0x33, 0x44, 0xfe];
const CARD = [0x52, 0x54, 0x00, 0xff, 0x00, 0x01];
const NEIGHBOUR = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const EVERYBODY = [255, 255, 255, 255, 255, 255];
const [guest, cardMac] = [Uint8Array.from(GUEST), Uint8Array.from(CARD)];

/** The internet checksum over an even or odd number of bytes (RFC 1071). */
function checksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const word = (value: number): [number, number] => [value >> 8, value & 0xff];
const ethernet = (destination: number[], source: number[], type: number, payload: number[], tag: number[] = []): number[] => [
  ...destination, ...source, ...tag, ...word(type), ...payload,
];

function arp(operation: number, sender: number[], target: number[], tag: number[] = []): number[] {
  const body = [0, 1, 8, 0, 6, 4, 0, operation, ...sender, 10, 0, 2, 10, ...target, 10, 0, 2, 2];
  return ethernet(operation === 1 ? EVERYBODY : target, sender, 0x0806, body, tag);
}

interface Dhcp { readonly hardware: number[]; readonly identifier: number[]; readonly ports: [number, number]; readonly sum?: boolean }

/** A DHCP message; options before the identifier bring it to an even or an odd place. */
function dhcp(destination: number[], source: number[], { hardware, identifier, ports, sum = true }: Dhcp, before: number[]): number[] {
  const message = [
    1, 1, 6, 0, ...new Array<number>(24).fill(7), ...hardware, ...new Array<number>(10 + 192).fill(0), 99, 130, 83, 99,
    ...before, 61, 1 + identifier.length, 1, ...identifier, 12, 2, 118, 109, 255,
  ];
  const udp = [...word(ports[0]), ...word(ports[1]), ...word(8 + message.length)];
  const addresses = [0, 0, 0, 0, 255, 255, 255, 255];
  const value = sum ? checksum([...addresses, 0, 17, ...word(8 + message.length), ...udp, 0, 0, ...message]) : 0;
  const header = [0x46, 0, ...word(24 + 8 + message.length), 0, 0, 0, 0, 64, 17, 0, 0, ...addresses, 1, 1, 1, 0];
  return ethernet(destination, source, 0x0800, [...header, ...udp, ...word(value), ...message]);
}

function discovery(type: number, before: number, source: number[], options: number[][]): number[] {
  const address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xff, 0xfe, 0, 0, 1];
  const message = [type, 0, 0, 0, ...new Array<number>(before - 4).fill(5), ...options.flat()];
  const value = checksum([...address, ...address, 0, 0, ...word(message.length), 0, 0, 0, 58, ...message]);
  message.splice(2, 2, ...word(value));
  return ethernet(NEIGHBOUR, source, 0x86dd, [0x60, 0, 0, 0, ...word(message.length), 58, 255, ...address, ...address, ...message]);
}

describe("what a guest sends", () => {
  const out = (frame: number[]): number[] => [...renameSource(Uint8Array.from(frame), guest, cardMac)];

  test("has the card's MAC in the header", () => {
    const payload = [1, 2, 3, ...GUEST];
    expect(out(ethernet(NEIGHBOUR, GUEST, 0x0800, payload))).toEqual(ethernet(NEIGHBOUR, CARD, 0x0800, payload));
  });

  test.each([[[]], [[0x81, 0, 0, 7]]])("has it in ARP, with the tag %j", (tag) => {
    expect(out(arp(1, GUEST, [0, 0, 0, 0, 0, 0], tag))).toEqual(arp(1, CARD, [0, 0, 0, 0, 0, 0], tag));
    expect(out(arp(2, GUEST, NEIGHBOUR, tag))).toEqual(arp(2, CARD, NEIGHBOUR, tag));
  });

  test.each([[[]], [[0]], [[53, 1, 1]], [[0, 0, 53, 1, 1, 55, 2, 1, 3]]])("has it in DHCP, with a checksum that is right, behind %j", (before) => {
    for (const sum of [true, false]) {
      const message = (mac: number[]): number[] =>
        dhcp(EVERYBODY, mac, { hardware: mac, identifier: mac, ports: [68, 67], sum }, before);
      expect(out(message(GUEST))).toEqual(message(CARD));
    }
  });

  test("keeps identifiers of other kinds, and messages that are not a DHCP client's", () => {
    const other = [9, 9, 9, 9, 9, 9, 9, 9];
    const message = (mac: number[], hardware: number[], ports: [number, number]): number[] =>
      dhcp(EVERYBODY, mac, { hardware, identifier: other, ports }, []);
    expect(out(message(GUEST, GUEST, [68, 67]))).toEqual(message(CARD, CARD, [68, 67]));
    expect(out(message(GUEST, GUEST, [5000, 53]))).toEqual(message(CARD, GUEST, [5000, 53]));
  });

  test.each([[133, 8], [134, 16], [135, 24], [136, 24]])("has it in neighbour discovery of type %i", (type, before) => {
    const mtu = [5, 1, 0, 0, 0, 0, 5, 220];
    const message = (mac: number[]): number[] => discovery(type, before, mac, [mtu, [1, 1, ...mac], [2, 1, ...mac]]);
    expect(out(message(GUEST))).toEqual(message(CARD));
  });

  test.each([
    ["an ARP that is cut", ethernet(EVERYBODY, GUEST, 0x0806, [0, 1, 8, 0, 6, 4, 0, 1, 2])],
    ["a DHCP option that is longer than the message", dhcp(EVERYBODY, GUEST, { hardware: NEIGHBOUR, identifier: GUEST, ports: [68, 67] }, [60, 250]).slice(0, 300)],
    ["a DHCP message that is cut", dhcp(EVERYBODY, GUEST, { hardware: NEIGHBOUR, identifier: GUEST, ports: [68, 67] }, []).slice(0, 46)],
    ["a discovery option without length", discovery(135, 24, GUEST, [[1, 0, ...NEIGHBOUR]])],
    ["an IPv6 packet that is cut", ethernet(NEIGHBOUR, GUEST, 0x86dd, [0x60, 0])],
    ["a header alone", ethernet(NEIGHBOUR, GUEST, 0x0800, [])],
  ])("is left as it is beside the header: %s", (_, frame) => {
    expect(out(frame)).toEqual([...frame.slice(0, 6), ...CARD, ...frame.slice(12)]);
  });

  test("is not changed itself", () => {
    const frame = Uint8Array.from(arp(1, GUEST, NEIGHBOUR));
    renameSource(frame, guest, cardMac);
    expect([...frame]).toEqual(arp(1, GUEST, NEIGHBOUR));
  });
});

describe("what a guest receives", () => {
  const back = (frame: number[]): number[] => [...renameDestination(Uint8Array.from(frame), cardMac, guest)];

  test("has its MAC in the header and in ARP", () => {
    expect(back(ethernet(CARD, NEIGHBOUR, 0x0800, [1, 2, 3]))).toEqual(ethernet(GUEST, NEIGHBOUR, 0x0800, [1, 2, 3]));
    expect(back(arp(2, NEIGHBOUR, CARD))).toEqual(arp(2, NEIGHBOUR, GUEST));
  });

  test("has its MAC in DHCP, broadcast or not", () => {
    for (const broadcast of [true, false]) {
      const message = (mac: number[]): number[] =>
        dhcp(broadcast ? EVERYBODY : mac, NEIGHBOUR, { hardware: mac, identifier: mac, ports: [67, 68] }, [53, 1, 2]);
      expect(back(message(CARD))).toEqual(message(GUEST));
    }
  });

  test("is left as it is when it is not for the card", () => {
    const frame = ethernet(EVERYBODY, NEIGHBOUR, 0x0800, CARD);
    expect(back(frame)).toEqual(frame);
  });
});
