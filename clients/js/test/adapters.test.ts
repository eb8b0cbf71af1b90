import { beforeEach, describe, expect, test, vi } from "vitest";
import { attachV86, connect, connectV86, connectVirtio } from "../src/index.js";
import type { NetworkInterface, Options, VirtioOptions } from "../src/index.js";
import { closeAtTheEnd, relay } from "./cards.js";
import { control } from "./fakes.js";

const URL = "https://relay.example/";
const MAC = [0x00, 0x22, 0x15, 1, 2, 3];
const OTHER = [0x00, 0x22, 0x15, 4, 5, 6];
const EVERYBODY = [255, 255, 255, 255, 255, 255];
const body = Uint8Array.from({ length: 30 }, (_, at) => at);
const from = (mac: readonly number[]): Uint8Array => Uint8Array.of(...EVERYBODY, ...mac, ...body);
const to = (mac: readonly number[]): Uint8Array => Uint8Array.of(...mac, ...EVERYBODY, ...body);
const text = (mac: readonly number[]): string => mac.map((byte) => byte.toString(16).padStart(2, "0")).join(":");

beforeEach(() => relay.install());

/** Waits for a card while the fake clock runs. */
async function card(pending: Promise<NetworkInterface>, patience = 2000): Promise<NetworkInterface> {
  pending.then(closeAtTheEnd, () => {});
  await vi.advanceTimersByTimeAsync(patience);
  return pending;
}

/** The buses of a v86, and what is known of its insides. */
class FakeV86 {
  readonly received: Uint8Array[] = [];
  readonly bus = { send: (_: string, frame: Uint8Array) => void this.received.push(frame) };
  readonly listeners = new Map<string, Set<(argument: never) => void>>();
  emulator_bus: object | undefined;
  v86: object | undefined;

  add_listener(event: string, listener: (argument: never) => void): void {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event)!.add(listener);
  }

  remove_listener(event: string, listener: (argument: never) => void): void {
    this.listeners.get(event)?.delete(listener);
  }

  say(event: string, argument: unknown): void {
    for (const listener of this.listeners.get(event) ?? []) listener(argument as never);
  }

  get listening(): number {
    return [...this.listeners.values()].reduce((sum, { size }) => sum + size, 0);
  }
}

describe("a v86 machine", () => {
  const options: Options = { transport: "websocket" };
  const connectTo = (emulator: FakeV86, more: Options = {}): Promise<NetworkInterface> =>
    card(connectV86(emulator, URL, { ...options, ...more }));

  test("sends and receives by its bus, until it is parted from its card", async () => {
    const emulator = new FakeV86();
    const detach = attachV86(emulator, await card(connect(URL, options)));
    emulator.say("net0-send", from(MAC));
    relay.links[0]!.deliver(Uint8Array.of(1, ...to(MAC)));
    expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...from(MAC)));
    expect(emulator.received).toEqual([to(MAC)]);
    detach();
    relay.links[0]!.deliver(Uint8Array.of(1, ...to(MAC)));
    expect(emulator.received).toHaveLength(1);
    expect(emulator.listening).toBe(0);
  });

  test("has one card at a time", async () => {
    const emulator = new FakeV86();
    const first = await connectTo(emulator);
    const listening = emulator.listening;
    await connectTo(emulator);
    expect(emulator.listening).toBe(listening);
    emulator.say("net0-send", from(MAC));
    expect(first.statistics.framesSent).toBe(0);
    expect(relay.addresses.size).toBe(1);
  });

  test("is registered under the MAC of its first frame", async () => {
    const emulator = new FakeV86();
    const nic = await connectTo(emulator);
    expect(nic.assigned).toBeUndefined();
    emulator.say("net0-send", from(MAC));
    expect([[...nic.mac], nic.assigned!.ip]).toEqual([MAC, [10, 0, 2, 10]]);
    expect([...relay.addresses.keys()]).toEqual([String(MAC)]);
    expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...from(MAC)));
  });

  test("that runs already has its address when connectV86() returns", async () => {
    const emulator = new FakeV86();
    const talking = setInterval(() => emulator.say("net0-send", from(MAC)), 300);
    const pending = connectV86(emulator, URL, options);
    let early: unknown;
    void pending.then((nic) => (early = nic.assigned?.ip));
    const nic = await card(pending);
    clearInterval(talking);
    expect(early).toEqual([10, 0, 2, 10]);
    expect([...nic.mac]).toEqual(MAC);
  });

  test("that still loads its files is waited for, and registered when its device is there", async () => {
    const emulator = new FakeV86();
    emulator.emulator_bus = {};
    const pending = connectV86(emulator, URL, options);
    let returned = false;
    void pending.then(() => (returned = true));
    await vi.advanceTimersByTimeAsync(5000);
    expect(returned).toBe(false);
    emulator.say("net0-mac", text(MAC));
    const nic = await card(pending, 0);
    expect([[...nic.mac], nic.assigned!.ip]).toEqual([MAC, [10, 0, 2, 10]]);
  });

  test.each(["virtio_net", "net"])("that has a device %s is registered at once", async (device) => {
    const emulator = new FakeV86();
    const mac = Uint8Array.from(MAC);
    emulator.v86 = { cpu: { devices: { [device]: { mac } } } };
    const nic = await card(connectV86(emulator, URL, options), 0);
    mac.fill(0);
    expect([[...nic.mac], nic.assigned!.ip]).toEqual([MAC, [10, 0, 2, 10]]);
  });

  test("whose state brings its MAC along takes no address for the one before", async () => {
    const emulator = new FakeV86();
    emulator.emulator_bus = {};
    const pending = connectV86(emulator, URL, options);
    await vi.advanceTimersByTimeAsync(10);
    emulator.say("net0-mac", text(OTHER));
    emulator.say("net0-mac", text(MAC));
    const nic = await card(pending);
    expect([...nic.mac]).toEqual(MAC);
    expect([...relay.addresses.keys()]).toEqual([String(MAC)]);
  });

  test("that changes its MAC gets an address for it and gives the other back", async () => {
    const emulator = new FakeV86();
    const nic = await connectTo(emulator);
    emulator.say("net0-send", from(MAC));
    emulator.say("net0-mac", text(OTHER));
    await vi.advanceTimersByTimeAsync(1000);
    emulator.say("net0-send", from(OTHER));
    expect([[...nic.mac], nic.assigned!.ip]).toEqual([OTHER, [10, 0, 2, 11]]);
    expect(relay.said(relay.links[0]!).at(-1)).toBe("Disconnect");
    expect(relay.links[1]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...from(OTHER)));
  });

  test("restored from a state that others share has its device's MAC on the LAN", async () => {
    const machines = [MAC, OTHER].map((mac) => {
      const emulator = new FakeV86();
      emulator.v86 = { cpu: { devices: { virtio_net: { mac: Uint8Array.from(mac) } } } };
      return emulator;
    });
    const [one, two] = await Promise.all(machines.map((emulator) => connectTo(emulator)));
    const shared = [0x00, 0x22, 0x15, 9, 9, 9];
    for (const emulator of machines) emulator.say("net0-send", from(shared));
    expect(relay.links.map(({ sent }) => sent.at(-1))).toEqual([MAC, OTHER].map((mac) => Uint8Array.of(1, ...from(mac))));
    relay.links[1]!.deliver(Uint8Array.of(1, ...to(OTHER)));
    expect(machines[1]!.received).toEqual([to(shared)]);
    expect([[...one!.mac], [...two!.mac]]).toEqual([MAC, OTHER]);
    expect(relay.addresses.size).toBe(2);
  });

  test("that shares its MAC with others still gets on, each under one of its own", async () => {
    const machines = Array.from({ length: 5 }, () => new FakeV86());
    const cards = await Promise.all(machines.map((emulator) => connectTo(emulator)));
    for (const emulator of machines) emulator.say("net0-send", from(MAC));
    await vi.advanceTimersByTimeAsync(5000);
    expect(cards.map(({ state }) => state)).toEqual(Array(5).fill("open"));
    expect(new Set(cards.map(({ mac }) => String(mac))).size).toBe(5);
    expect(new Set(cards.map(({ assigned }) => String(assigned!.ip))).size).toBe(5);
  });

  test("keeps the MAC that the caller gives its card, whatever its own", async () => {
    const emulator = new FakeV86();
    const nic = await connectTo(emulator, { mac: Uint8Array.from(OTHER) });
    expect(nic.assigned!.ip).toEqual([10, 0, 2, 10]);
    emulator.say("net0-send", from(MAC));
    relay.links[0]!.deliver(Uint8Array.of(1, ...to(OTHER)));
    expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...from(OTHER)));
    expect(emulator.received).toEqual([to(MAC)]);
    expect([...relay.addresses.keys()]).toEqual([String(OTHER)]);
  });

  test("is let go when its relay does not answer", async () => {
    relay.install({ webSocket: false });
    const emulator = new FakeV86();
    await expect(connectTo(emulator)).rejects.toThrow("the connection failed");
    expect(emulator.listening).toBe(0);
  });

  test("without a bus is refused", async () => {
    const emulator = { add_listener: () => {}, remove_listener: () => {} };
    await expect(connectV86(emulator, URL)).rejects.toThrow("this v86 has no bus");
  });

  test("tells its name", async () => {
    const emulator = new FakeV86();
    await connectTo(emulator, { name: "builder" });
    emulator.say("net0-send", from(MAC));
    expect(relay.links[0]!.sent[0]).toEqual(control({ type: "Register", mac: MAC, name: "builder" }));
  });
});

describe.each([0, 10, 12] as const)("a virtio device with headers of %i bytes", (headerLength) => {
  const header = { 0: [], 10: new Array<number>(10).fill(0), 12: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0] }[headerLength];
  const sent = (mac: number[]): Uint8Array => Uint8Array.of(...new Array<number>(headerLength).fill(0), ...from(mac));

  test.each([undefined, Uint8Array.from(OTHER)])("has one address, with the MAC %s", async (mac) => {
    const received: Uint8Array[] = [];
    const options = { headerLength, transport: "websocket" as const, ...(mac && { mac }) };
    const pending = connectVirtio(URL, (buffer) => received.push(buffer), options);
    await card(pending.then(({ nic }) => nic));
    const port = await pending;
    const lan = mac === undefined ? MAC : OTHER;
    port.transmit(sent(MAC));
    relay.links[0]!.deliver(Uint8Array.of(1, ...to(lan)));
    expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...from(lan)));
    expect([...received[0]!]).toEqual([...header, ...to(MAC)]);
    expect([...relay.addresses.keys()]).toEqual([String(lan)]);
    expect([...port.nic.mac]).toEqual(lan);
  });
});

test.each([-1, 11, 14, NaN])("a virtio device has no headers of %d bytes", async (headerLength) => {
  const options = { headerLength } as unknown as VirtioOptions;
  await expect(connectVirtio(URL, () => {}, options)).rejects.toBeInstanceOf(TypeError);
});
