import { describe, expect, test } from "vitest";
import { Chunker, Reassembler, encodeControl, parseControl } from "../src/wire.js";

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at % 251);
const control = (text: string): Uint8Array => Uint8Array.of(0, ...new TextEncoder().encode(text));

describe("control messages", () => {
  test("are compact JSON after a zero", () => {
    expect(encodeControl({ type: "Register", mac: [82, 84, 0, 1, 2, 3] })).toEqual(
      control('{"type":"Register","mac":[82,84,0,1,2,3]}'),
    );
  });

  const assigned = '{"type":"Assigned","ip":[10,0,2,10],"gateway":[10,0,2,2],"netmask":[255,255,255,0],"dns":[8,8,8,8]';

  test.each([
    ["", 1500],
    [',"mtu":1400', 1400],
    [',"mtu":99999', 1500],
    [',"mtu":"x"', 1500],
  ])("Assigned with %j has MTU %i", (more, mtu) => {
    expect(parseControl(control(`${assigned}${more},"colour":"new"}`))).toEqual({
      type: "Assigned",
      assigned: { ip: [10, 0, 2, 10], gateway: [10, 0, 2, 2], netmask: [255, 255, 255, 0], dns: [8, 8, 8, 8], mtu, room: "default" },
      resume: "",
      urls: [],
    });
  });

  test.each([
    ['["https://a","https://b:1"]', ["https://a", "https://b:1"]],
    ['"https://a"', []],
    [`["https://a",1,null,"${"b".repeat(301)}"]`, ["https://a"]],
    [JSON.stringify(Array(1000).fill("https://a")), Array(8).fill("https://a")],
  ])("Assigned with the URLs %s names %j", (more, urls) => {
    expect(parseControl(control(`${assigned},"urls":${more}}`))).toMatchObject({ urls });
  });

  test.each([
    [',"room":"lab"', "lab"],
    [',"room":7', "default"],
  ])("Assigned with %j is of room %s", (more, room) => {
    expect(parseControl(control(`${assigned}${more}}`))).toMatchObject({ assigned: { room } });
  });

  test.each(["", "{", "null", "[]x", '{"type":"Assigned","ip":[1,2,3]}', '{"type":"Assigned","ip":[1,2,3,400]}'])(
    "%j is malformed",
    (text) => {
      expect(parseControl(control(text))).toBeUndefined();
    },
  );

  test("of unknown types are passed over", () => {
    expect(parseControl(control('{"type":"New"}'))).toEqual({ type: "Other" });
  });
});

describe("chunks", () => {
  test.each([14, 950])("a frame of %i bytes travels whole", (length) => {
    expect(new Chunker().wrap(bytes(length))).toEqual([Uint8Array.of(1, ...bytes(length))]);
  });

  test.each([951, 1514])("a frame of %i bytes travels in pieces and is put together in any order", (length) => {
    const datagrams = new Chunker().wrap(bytes(length));
    expect(datagrams.map((datagram) => [...datagram.subarray(0, 5)])).toEqual([
      [2, 0, 0, 0, 2],
      [2, 0, 0, 1, 2],
    ]);
    for (const order of [datagrams, [...datagrams].reverse()]) {
      const reassembler = new Reassembler();
      expect(reassembler.accept(order[0]!, 0)).toBeUndefined();
      expect(reassembler.accept(order[0]!, 0)).toBeUndefined();
      expect(reassembler.accept(order[1]!, 0)).toEqual(bytes(length));
      expect(reassembler.size).toBe(0);
    }
  });

  test("are not needed where messages have any length", () => {
    expect(new Chunker().wrap(bytes(1514), Infinity)).toHaveLength(1);
  });

  test("ids count up and wrap", () => {
    const chunker = new Chunker();
    const frame = bytes(951);
    const ids = Array.from({ length: 65537 }, () => {
      const [, high = 0, low = 0] = chunker.wrap(frame)[0]!;
      return (high << 8) | low;
    });
    expect([ids[0], ids[1], ids[65535], ids[65536]]).toEqual([0, 1, 65535, 0]);
  });

  test("of a frame are given up after five seconds", () => {
    const reassembler = new Reassembler();
    const [first, second] = new Chunker().wrap(bytes(1000));
    reassembler.accept(first!, 0);
    expect(reassembler.accept(second!, 5000)).toBeUndefined();
    expect(reassembler.size).toBe(1);
  });

  test("cost bounded memory", () => {
    const reassembler = new Reassembler();
    for (let id = 0; id < 1000; id++) {
      reassembler.accept(Uint8Array.of(2, id >> 8, id & 255, 0, 2, 7), 0);
      expect(reassembler.size).toBeLessThanOrEqual(64);
    }
    const large = new Uint8Array(1600);
    large.set([2, 9, 9, 0, 2]);
    reassembler.accept(large, 0);
    expect(reassembler.size).toBeLessThanOrEqual(64);
  });

  test.each([[[2]], [[2, 0, 0, 0, 1]], [[2, 0, 0, 3, 3, 1]], [[2, 0, 0, 0, 0, 1]]])("%j is no chunk", (datagram) => {
    const reassembler = new Reassembler();
    expect(reassembler.accept(Uint8Array.from(datagram), 0)).toBeUndefined();
    expect(reassembler.size).toBe(0);
  });
});
