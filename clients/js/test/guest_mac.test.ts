import { describe, expect, test, vi } from "vitest";
import type { StateChange } from "../src/index.js";
import { attach, frame, relay } from "./cards.js";
import { ASSIGNED, control } from "./fakes.js";

describe("a guest's own MAC", () => {
  const GUEST = [0x02, 0, 0, 0, 0, 1];
  const OTHER = [0x02, 0, 0, 0, 0, 2];
  const from = (mac: number[], length = 60): Uint8Array => Uint8Array.of(...new Array<number>(6).fill(255), ...mac, ...frame(length - 12));
  const guest = { mac: "guest", transport: "websocket" } as const;

  test("is registered when its first frame shows it, and no other", async () => {
    relay.install();
    const assigned: number[] = [];
    const nic = await attach("https://relay.example/", { ...guest, onassigned: ({ ip }) => assigned.push(ip[3]) });
    expect([nic.state, nic.assigned, [...nic.mac]]).toEqual(["registering", undefined, [0, 0, 0, 0, 0, 0]]);
    expect(relay.links[0]!.sent).toEqual([]);
    nic.send(from(GUEST));
    expect([nic.state, nic.assigned!.ip, [...nic.mac]]).toEqual(["open", [10, 0, 2, 10], GUEST]);
    expect(relay.links[0]!.sent).toEqual([control({ type: "Register", mac: GUEST }), Uint8Array.of(1, ...from(GUEST))]);
    expect(assigned).toEqual([10]);
    expect(relay.addresses.size).toBe(1);
  });

  test("keeps what was sent before there is an address, in order and within bounds", async () => {
    relay.install();
    const usual = relay.answer;
    relay.answer = () => {};
    const nic = await attach("https://relay.example/", guest);
    for (let length = 60; length < 160; length++) nic.send(from(GUEST, length));
    expect(nic.statistics).toMatchObject({ framesSent: 0, framesDropped: 36 });
    relay.answer = usual;
    await vi.advanceTimersByTimeAsync(300);
    const lengths = relay.links[0]!.sent.filter(([kind]) => kind === 1).map(({ length }) => length - 1);
    expect(lengths).toEqual(Array.from({ length: 64 }, (_, at) => 96 + at));
    expect(nic.statistics).toMatchObject({ framesSent: 64, framesDropped: 36 });
  });

  test("is followed when it changes, in a session of its own", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", guest);
    nic.send(from(GUEST));
    nic.send(from(OTHER));
    nic.send(from(OTHER, 70));
    relay.links[0]!.deliver(control({ type: "Assigned", ...ASSIGNED })); // late, and for the MAC before
    expect(nic.assigned).toBeUndefined();
    expect(relay.said(relay.links[0]!)).toEqual(["Register", "Disconnect"]);
    await vi.advanceTimersByTimeAsync(1000);
    expect([nic.state, nic.assigned!.ip, [...nic.mac]]).toEqual(["open", [10, 0, 2, 11], OTHER]);
    const frames = [from(OTHER), from(OTHER, 70)].map((bytes) => Uint8Array.of(1, ...bytes));
    expect(relay.links[1]!.sent).toEqual([control({ type: "Register", mac: OTHER }), ...frames]);
    expect(nic.statistics.framesDropped).toBe(0);
  });

  test("is followed at once also if the relay was away for long before", async () => {
    relay.install();
    const changes: StateChange[] = [];
    const nic = await attach("https://relay.example/", { ...guest, onstate: (change) => changes.push(change) });
    nic.send(from(GUEST));
    await vi.advanceTimersByTimeAsync(2000);
    await relay.beAwayForLong();
    expect(nic.state).toBe("open");
    nic.send(from(OTHER));
    expect(changes.at(-1)!.retryIn).toBeLessThanOrEqual(100);
    await vi.advanceTimersByTimeAsync(1000);
    expect([nic.state, [...nic.mac]]).toEqual(["open", OTHER]);
  });

  test("that comes and goes is a bridge's, which is left alone", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", guest);
    for (let round = 0; round < 6; round++) {
      nic.send(from(GUEST));
      await vi.advanceTimersByTimeAsync(1000);
      nic.send(from(OTHER));
      await vi.advanceTimersByTimeAsync(1000);
    }
    expect(relay.links).toHaveLength(2);
    expect(nic.statistics).toMatchObject({ framesSent: 12, framesDropped: 0 });
  });

  test("that never stays the same ends the following", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", guest);
    for (let number = 0; number < 40; number++) {
      nic.send(from([0x02, 0, 0, 0, 1, number]));
      await vi.advanceTimersByTimeAsync(60_000);
    }
    expect(relay.links).toHaveLength(5);
  });

  test("of another session is left to it by the younger one, whose guest goes on under a MAC of its own", async () => {
    relay.install();
    const received: Uint8Array[] = [];
    const elder = await attach("https://relay.example/", guest);
    elder.send(from(GUEST));
    await vi.advanceTimersByTimeAsync(10_000);
    const younger = await attach("https://relay.example/", { ...guest, onframe: (bytes) => received.push(bytes) });
    younger.send(from(GUEST));
    await vi.advanceTimersByTimeAsync(120_000);
    expect([elder.state, [...elder.mac]]).toEqual(["open", GUEST]);
    expect(younger.state).toBe("open");
    expect([...younger.mac]).not.toEqual(GUEST);
    expect(younger.assigned!.ip).not.toEqual(elder.assigned!.ip);
    expect(elder.statistics.reconnects).toBe(1);
    expect(younger.statistics.reconnects).toBe(1);
    // The guest does not notice.
    younger.send(from(GUEST));
    const link = relay.links.at(-1)!;
    expect(link.sent.at(-1)).toEqual(Uint8Array.of(1, ...from([...younger.mac])));
    link.deliver(Uint8Array.of(1, ...younger.mac, ...frame(54)));
    expect(received.at(-1)).toEqual(Uint8Array.of(...GUEST, ...frame(54)));
  });

  test("stays with the elder however often a younger one comes", async () => {
    relay.install();
    const elder = await attach("https://relay.example/", guest);
    elder.send(from(GUEST));
    for (let number = 0; number < 6; number++) {
      const younger = await attach("https://relay.example/", guest);
      younger.send(from(GUEST));
      await vi.advanceTimersByTimeAsync(2000);
      expect([elder.state, younger.state, [...elder.mac]]).toEqual(["open", "open", GUEST]);
    }
    expect(relay.addresses.size).toBe(7);
  });

  test("needs no registration when raw, and changes with the session there too", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", { ...guest, encapsulation: "raw" });
    expect(nic.state).toBe("open");
    nic.send(from(GUEST));
    nic.send(from(OTHER));
    await vi.advanceTimersByTimeAsync(1000);
    expect(relay.links.map(({ sent }) => sent)).toEqual([[from(GUEST)], [from(OTHER)]]);
    expect([...nic.mac]).toEqual(OTHER);
  });

  test("does not keep a card from being closed before it is known", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", guest);
    nic.close();
    nic.send(from(GUEST));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(nic.state).toBe("closed");
    expect(relay.links).toHaveLength(1);
  });

  test("is waited for again when the connection is lost meanwhile", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", guest);
    relay.links[0]!.end(1006, "");
    await vi.advanceTimersByTimeAsync(1000);
    nic.send(from(GUEST));
    expect(nic.state).toBe("open");
    expect(relay.said(relay.links[1]!)).toEqual(["Register"]);
  });
});
