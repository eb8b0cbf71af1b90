import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { connect } from "../src/index.js";
import type { NetworkInterface, StateChange } from "../src/index.js";
import { ASSIGNED, FakeRelay, control } from "./fakes.js";

const HASH = "ab".repeat(32);
const frame = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at % 251);

let relay: FakeRelay;
let nics: NetworkInterface[];

beforeEach(() => {
  vi.useFakeTimers();
  relay = new FakeRelay();
  nics = [];
});

afterEach(async () => {
  for (const nic of nics) nic.close();
  await vi.advanceTimersByTimeAsync(0);
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Connects while the fake clock runs. */
async function attach(...arguments_: Parameters<typeof connect>): Promise<NetworkInterface> {
  const outcome = connect(...arguments_).then(
    (nic) => {
      nics.push(nic);
      return nic;
    },
    (error: unknown) => error as Error,
  );
  await vi.advanceTimersByTimeAsync(30_000);
  const result = await outcome;
  if (result instanceof Error) throw result;
  return result;
}

describe("connecting", () => {
  test("goes by WebTransport with the given hash, and registers", async () => {
    relay.install();
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    const nic = await attach("https://relay.example:4433/", { certificateHash: HASH, mac });
    const [link] = relay.links;
    expect(link!.url).toBe("https://relay.example:4433/");
    expect(link!.options!.serverCertificateHashes).toEqual([
      { algorithm: "sha-256", value: new Uint8Array(32).fill(0xab) },
    ]);
    expect(nic.carrier).toBe("webtransport");
    expect(nic.assigned).toEqual({ ...ASSIGNED, mtu: 1500 });
    expect(link!.sent[0]).toEqual(control({ type: "Register", mac: [...mac] }));
  });

  test("fetches the present and the next hash", async () => {
    relay.install({ hashes: { current: { hash: HASH, pinned: true }, next: { hash: "cd".repeat(32), pinned: true } } });
    await attach("https://relay.example:4433/");
    expect(relay.links[0]!.options!.serverCertificateHashes).toHaveLength(2);
  });

  test.each([undefined, { current: { hash: HASH, pinned: false }, next: null }])(
    "leaves the certificate to the browser where there is nothing to pin: %j",
    async (hashes) => {
      relay.install({ hashes });
      await attach("https://relay.example:4433/");
      expect(relay.links[0]!.options!.serverCertificateHashes).toBeUndefined();
    },
  );

  test.each([
    ["https://relay.example:4433/", "wss://relay.example:4433/"],
    ["http://127.0.0.1:4433/", "ws://127.0.0.1:4433/"],
    ["wss://relay.example/some", "wss://relay.example/some"],
  ])("falls back from %s to %s", async (url, websocket) => {
    relay.install({ webTransport: false });
    const nic = await attach(url);
    expect(nic.carrier).toBe("websocket");
    expect(relay.links[0]!.url).toBe(websocket);
  });

  test("does without WebTransport where a browser has none", async () => {
    relay.install();
    vi.stubGlobal("WebTransport", undefined);
    expect((await attach("https://relay.example/")).carrier).toBe("websocket");
  });

  test("says what went wrong with each", async () => {
    relay.install({ webTransport: false, webSocket: false });
    await expect(attach("https://relay.example/")).rejects.toThrow("WebTransport: no UDP; WebSocket: the connection failed");
  });

  test("repeats a Register that got lost", async () => {
    relay.install();
    const usual = relay.answer;
    relay.answer = (link, datagram) => {
      if (relay.said(link).length >= 3) usual(link, datagram);
    };
    await attach("https://relay.example/");
    expect(relay.said(relay.links[0]!).slice(0, 3)).toEqual(["Register", "Register", "Register"]);
  });

  test("gives up when no address comes", async () => {
    relay.install();
    relay.answer = () => {};
    await expect(attach("https://relay.example/")).rejects.toThrow("the relay gives no address");
  });

  test("tells the relay's refusal", async () => {
    relay.install();
    relay.answer = (link) => link.deliver(control({ type: "Error", message: "the LAN is full" }));
    await expect(attach("https://relay.example/")).rejects.toThrow("the LAN is full");
  });

  test.each([
    ["ftp://relay.example/", {}],
    ["nonsense", {}],
    ["https://relay.example/", { certificateHash: "abc" }],
    ["https://relay.example/", { mac: Uint8Array.of(1, 2, 3) }],
    ["https://relay.example/", { mac: Uint8Array.of(1, 0, 0, 0, 0, 0) }],
  ])("refuses %s with %j", async (url, options) => {
    relay.install();
    await expect(attach(url, options)).rejects.toBeInstanceOf(TypeError);
  });
});

describe("frames", () => {
  test.each(["webtransport", "websocket"] as const)("travel both ways over %s", async (transport) => {
    relay.install();
    const received: Uint8Array[] = [];
    const nic = await attach("https://relay.example/", { transport, onframe: (bytes) => received.push(bytes) });
    const [link] = relay.links;
    nic.send(frame(60));
    nic.send(frame(1514));
    link!.deliver(Uint8Array.of(1, ...frame(42)));
    await vi.advanceTimersByTimeAsync(0);
    const kinds = link!.sent.filter(([kind]) => kind !== 0).map((datagram) => [datagram[0], datagram.length]);
    expect(kinds).toEqual(
      transport === "websocket" ? [[1, 61], [1, 1515]] : [[1, 61], [2, 905], [2, 619]],
    );
    expect(received).toEqual([frame(42)]);
    expect(nic.statistics).toMatchObject({ framesSent: 2, bytesSent: 1574, framesReceived: 1, framesDropped: 0 });
  });

  test.each(["webtransport", "websocket"] as const)("travel bare when raw, over %s", async (transport) => {
    relay.install();
    const received: Uint8Array[] = [];
    const nic = await attach("https://relay.example/", {
      transport,
      encapsulation: "raw",
      onframe: (bytes) => received.push(bytes),
    });
    nic.send(frame(60));
    relay.links[0]!.deliver(frame(42));
    await vi.advanceTimersByTimeAsync(0);
    expect(relay.links[0]!.url).toMatch(/\/\?encap=raw$/);
    expect(relay.links[0]!.sent).toEqual([frame(60)]);
    expect(received).toEqual([frame(42)]);
    expect(nic.assigned).toBeUndefined();
  });

  test("that are none are dropped and counted", async () => {
    relay.install();
    const nic = await attach("https://relay.example/");
    nic.send(frame(13));
    nic.send(frame(2000));
    for (const datagram of [Uint8Array.of(9), Uint8Array.of(0, 1), Uint8Array.of(1, 2), new Uint8Array(0)]) {
      relay.links[0]!.deliver(datagram);
    }
    await vi.advanceTimersByTimeAsync(0);
    expect(nic.statistics).toMatchObject({ framesDropped: 2, malformed: 4, framesReceived: 0 });
  });

  test("are copied before they leave: emulators use the memory again", async () => {
    relay.install();
    const nic = await attach("https://relay.example/", { transport: "websocket", encapsulation: "raw" });
    const bytes = frame(60);
    nic.send(bytes);
    bytes.fill(0);
    expect(relay.links[0]!.sent).toEqual([frame(60)]);
  });
});

describe("a lost connection", () => {
  test("is replaced, with the same MAC, after longer and longer delays", async () => {
    relay.install();
    const changes: StateChange[] = [];
    await attach("https://relay.example/", { onstate: (change) => changes.push(change), transport: "websocket" });
    for (let round = 0; round < 8; round++) {
      relay.links.at(-1)!.end(1001, "relay is shutting down");
      await vi.advanceTimersByTimeAsync(40_000);
      expect(relay.links).toHaveLength(round + 2);
    }
    const waits = changes.filter(({ state }) => state === "waiting");
    expect(waits[0]!.reason).toBe("relay is shutting down");
    const delays = waits.map(({ retryIn }) => retryIn!);
    expect(delays[0]!).toBeLessThanOrEqual(625);
    expect(Math.max(...delays)).toBeGreaterThan(15_000);
    expect(Math.max(...delays)).toBeLessThanOrEqual(37_500);
    const registers = relay.links.map(({ sent }) => new TextDecoder().decode(sent[0]));
    expect(new Set(registers).size).toBe(1);
  });

  test("is found by heartbeats that nobody answers", async () => {
    relay.install();
    const nic = await attach("https://relay.example/");
    await vi.advanceTimersByTimeAsync(20_000);
    expect(nic.statistics.roundTrip).toBe(0);
    const usual = relay.answer;
    relay.answer = () => {};
    await vi.advanceTimersByTimeAsync(60_000);
    expect(relay.links.length).toBeGreaterThan(1);
    relay.answer = usual;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(nic.state).toBe("open");
    expect(nic.statistics.reconnects).toBe(1);
  });

  test("is the end where reconnecting is off", async () => {
    relay.install();
    const changes: StateChange[] = [];
    await attach("https://relay.example/", { onstate: (change) => changes.push(change), reconnect: false });
    relay.links[0]!.end(4, "taken over");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(changes.at(-1)).toEqual({ state: "closed", reason: "taken over" });
    expect(relay.links).toHaveLength(1);
  });
});

test("closing says goodbye and is final", async () => {
  relay.install();
  const changes: string[] = [];
  const nic = await attach("https://relay.example/", { onstate: ({ state }) => changes.push(state), transport: "websocket" });
  nic.close();
  nic.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(changes).toEqual(["connecting", "registering", "open", "closed"]);
  expect(relay.said(relay.links[0]!).at(-1)).toBe("Disconnect");
  expect(relay.links).toHaveLength(1);
  nic.send(frame(60));
  expect(nic.statistics.framesDropped).toBe(1);
});
