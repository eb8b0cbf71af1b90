import { describe, expect, test, vi } from "vitest";
import type { NetworkInterface, Options, StateChange } from "../src/index.js";
import { PATIENCE, attach, frame, relay } from "./cards.js";
import { ASSIGNED, control } from "./fakes.js";

const HASH = "ab".repeat(32);

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
    expect(nic.assigned).toEqual({ ...ASSIGNED, mtu: 1500, room: "lab" });
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

  test("does without WebTransport where there is none, and asks for no hash then", async () => {
    relay.install();
    vi.stubGlobal("WebTransport", undefined);
    vi.stubGlobal("fetch", () => expect.fail("asked"));
    expect((await attach("https://relay.example/")).carrier).toBe("websocket");
  });

  test("says what went wrong with each", async () => {
    relay.install({ webTransport: false, webSocket: false });
    await expect(attach("https://relay.example/")).rejects.toThrow("WebTransport: no UDP; WebSocket: the connection failed");
  });

  test("tells why the relay refuses, which browsers keep to themselves", async () => {
    relay.install({ webTransport: false, webSocket: false });
    const asked = vi.fn(() => Promise.resolve(new Response("A token is needed.\n", { status: 401 })));
    vi.stubGlobal("fetch", asked);
    const options = { certificateHash: HASH, token: "a.b.c" };
    await expect(attach("wss://relay.example:4433/room/lab", options)).rejects.toThrow(
      /^the relay refuses with status 401: A token is needed\.$/,
    );
    expect(asked.mock.calls[0]).toMatchObject(["https://relay.example:4433/admission/room/lab?token=a.b.c", {}]);
  });

  test("tells nothing of a relay that would not refuse", async () => {
    relay.install({ webTransport: false, webSocket: false });
    vi.stubGlobal("fetch", () => Promise.resolve(new Response(null, { status: 204 })));
    await expect(attach("wss://relay.example/")).rejects.toThrow("WebSocket: the connection failed");
  });

  test("sends its token in the URL of WebTransport", async () => {
    relay.install();
    await attach("https://relay.example/room/lab?token=old&encap=framed", { certificateHash: HASH, token: "a.b.c" });
    expect(relay.links[0]!.url).toBe("https://relay.example/room/lab?token=a.b.c&encap=framed");
  });

  test("sends no older token of its URL beside that to a WebSocket", async () => {
    relay.install({ webTransport: false });
    await attach("https://relay.example/room/lab?token=old&x=1", { token: () => "a.b.c\n".trim() });
    expect(relay.links[0]).toMatchObject({ url: "wss://relay.example/room/lab?x=1", protocols: ["binary", "token.a.b.c"] });
  });

  test.each([null, undefined])("goes without a token where a function gives %j", async (nothing) => {
    relay.install({ webTransport: false });
    await attach("https://relay.example/", { token: () => nothing as unknown as string });
    expect(relay.links[0]!.protocols).toEqual([]);
  });

  test.each(["a b", "a,b", "a.b.c\n", 7])("does not show what %j is, which is no token", async (token) => {
    relay.install();
    await expect(attach("https://relay.example/", { token: () => token as string })).rejects.toThrow(/^the token is none/);
    expect(relay.links).toHaveLength(0);
  });

  test("sends its token among the subprotocols of a WebSocket, and asks for a fresh one each time", async () => {
    relay.install({ webTransport: false });
    let count = 0;
    const nic = await attach("https://relay.example/room/lab", { token: async () => `token${++count}` });
    relay.links[0]!.end(4006, "the token has expired");
    await vi.advanceTimersByTimeAsync(PATIENCE);
    expect(relay.links.map(({ url, protocols }) => [url, protocols])).toEqual([
      ["wss://relay.example/room/lab", ["binary", "token.token1"]],
      ["wss://relay.example/room/lab", ["binary", "token.token2"]],
    ]);
    expect(nic.state).toBe("open");
  });

  test.each([undefined, ""])("offers no subprotocol without a token: %j", async (token) => {
    relay.install({ webTransport: false });
    await attach("https://relay.example/", token === undefined ? {} : { token });
    expect(relay.links[0]!.protocols).toEqual([]);
  });

  test("a function without a token to give is a reason", async () => {
    relay.install();
    const token = (): Promise<string> => Promise.reject(new Error("signed out"));
    await expect(attach("https://relay.example/", { token })).rejects.toThrow("signed out");
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

  test("tells the guest's name", async () => {
    relay.install();
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    await attach("https://relay.example/", { mac, name: "builder" });
    expect(relay.links[0]!.sent[0]).toEqual(control({ type: "Register", mac: [...mac], name: "builder" }));
  });

  test.each(["wss://relay.example/raw", "https://relay.example/raw/", "ws://127.0.0.1:4433/raw?x=1", "https://relay.example/room/a/raw"])(
    "says that %s has no addresses to give",
    async (url) => {
      relay.install();
      await expect(attach(url)).rejects.toThrow(/carries bare frames.*Leave "raw" out/);
      expect(relay.links).toHaveLength(0);
    },
  );

  test.each([
    ["wss://relay.example/raw", "raw"],
    ["wss://relay.example/raw?encap=raw", undefined],
    ["wss://relay.example/raw?encap=framed", undefined],
    ["wss://relay.example/room/raw-food", undefined],
    ["https://relay.example/room/raw", undefined],
  ] as const)("takes %s with encapsulation %s", async (url, encapsulation) => {
    relay.install();
    const nic = await attach(url, encapsulation === undefined ? {} : { encapsulation });
    expect(nic.state).toBe("open");
  });

  test.each([
    ["ftp://relay.example/", {}],
    ["nonsense", {}],
    ["https://relay.example/", { certificateHash: "abc" }],
    ["https://relay.example/", { mac: Uint8Array.of(1, 2, 3) }],
    ["https://relay.example/", { mac: Uint8Array.of(1, 0, 0, 0, 0, 0) }],
    ["https://relay.example/", { mac: new Uint8Array(6) }],
    ["https://relay.example/", { transport: "webTransport" }],
    ["https://relay.example/", { encapsulation: "RAW" }],
    ["https://relay.example/?encap=raw", { encapsulation: "framed" }],
    ["https://relay.example/?encap=framed", { encapsulation: "raw" }],
    ["https://relay.example/", { timeout: 0 }],
    ["https://relay.example/", { timeout: NaN }],
    ["https://relay.example/", { timeout: Infinity }],
    ["https://relay.example/", { timeout: 2 ** 31 }],
    ["https://relay.example/", { timeout: "5s" }],
    ["https://relay.example/", { token: "a b" }],
    ["https://relay.example/", { token: { text: "a.b.c" } }],
    ["ftp://relay.example/?token=s3cret", {}],
    ["https://relay.example/raw?token=s3cret", {}],
    ["https://relay.example/?token=s3cret&encap=raw", { encapsulation: "framed" }],
  ])("refuses %s with %j, and shows no token", async (url, options) => {
    relay.install();
    const problem = await attach(url, options as Options).catch((error: unknown) => error);
    expect(problem).toBeInstanceOf(TypeError);
    expect(String(problem)).not.toContain("s3cret");
    expect(relay.links).toHaveLength(0);
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
    for (const none of [frame(13), frame(2000), new ArrayBuffer(60), undefined, null, 60]) nic.send(none as Uint8Array);
    for (const datagram of [Uint8Array.of(9), Uint8Array.of(0, 1), Uint8Array.of(1, 2), new Uint8Array(0)]) {
      relay.links[0]!.deliver(datagram);
    }
    await vi.advanceTimersByTimeAsync(0);
    expect(nic.statistics).toMatchObject({ framesDropped: 6, framesSent: 0, bytesSent: 0, malformed: 4, framesReceived: 0 });
  });

  test.each(["onframe", "onstate", "onassigned"] as const)("still come after %s has thrown, which is heard of", async (listener) => {
    relay.install();
    const thrown: unknown[] = [];
    const queue = globalThis.queueMicrotask;
    vi.stubGlobal("queueMicrotask", (task: () => void) =>
      queue(() => {
        try {
          task();
        } catch (error) {
          thrown.push(error);
        }
      }),
    );
    const heard: Uint8Array[] = [];
    const problem = new Error("the ring is full");
    const failing = (): never => {
      throw problem;
    };
    const options = { transport: "webtransport", onframe: (bytes: Uint8Array) => void heard.push(bytes) } as const;
    const failingFirst = (bytes: Uint8Array): void => {
      heard.push(bytes);
      if (heard.length === 1) failing();
    };
    const nic = await attach("https://relay.example/", { ...options, [listener]: listener === "onframe" ? failingFirst : failing });
    expect(nic.state).toBe("open");
    for (const length of [42, 43]) relay.links[0]!.deliver(Uint8Array.of(1, ...frame(length)));
    await vi.advanceTimersByTimeAsync(0);
    expect(heard).toEqual([frame(42), frame(43)]);
    expect(new Set(thrown)).toEqual(new Set([problem]));
    // Served as any other: its end is noticed.
    relay.links[0]!.end(0, "");
    await vi.advanceTimersByTimeAsync(1000);
    expect(relay.links).toHaveLength(2);
    expect(nic.state).toBe("open");
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

describe("a relay that drains", () => {
  test.each([
    ["a time", { seconds: 5 }, 5],
    ["no time", { seconds: null }, undefined],
    ["nonsense", { seconds: "soon" }, undefined],
  ])("is told of with %s, and the card goes on", async (_, said, told) => {
    relay.install();
    const heard: (number | undefined)[] = [];
    const nic = await attach("https://relay.example/", { transport: "websocket", ondraining: (seconds) => heard.push(seconds) });
    relay.links[0]!.deliver(control({ type: "Draining", ...said }));
    expect(heard).toEqual([told]);
    expect(nic.state).toBe("open");
    nic.send(frame(60));
    expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...frame(60)));
    expect(nic.statistics.malformed).toBe(0);
  });
});

describe("a lost connection", () => {
  test("is replaced, with the same MAC, at once, then after longer and longer delays if another has it", async () => {
    relay.install();
    const changes: StateChange[] = [];
    await attach("https://relay.example/", { onstate: (change) => changes.push(change), transport: "websocket" });
    for (let round = 0; round < 12; round++) {
      relay.links.at(-1)!.end(4004, "another session registered it");
      await vi.advanceTimersByTimeAsync(40_000);
      expect(relay.links).toHaveLength(round + 2);
    }
    const waits = changes.filter(({ state }) => state === "waiting");
    expect(waits[0]!.reason).toBe("another session registered it");
    const delays = waits.map(({ retryIn }) => retryIn!);
    expect(delays[0]!).toBeLessThanOrEqual(100);
    for (const [round, delay] of delays.slice(1, 7).entries()) {
      expect(delay).toBeGreaterThanOrEqual(187 * 2 ** round);
      expect(delay).toBeLessThanOrEqual(313 * 2 ** round);
    }
    expect(Math.max(...delays)).toBeGreaterThan(15_000);
    expect(Math.max(...delays)).toBeLessThanOrEqual(37_500);
    const registers = relay.links.slice(1).map(({ sent }) => new TextDecoder().decode(sent[0]));
    expect(new Set(registers).size).toBe(1);
  });

  test.each([1001, 1006, 4007])("is replaced at once each time, unless another took its MAC: code %i", async (code) => {
    relay.install();
    const changes: StateChange[] = [];
    await attach("https://relay.example/", { onstate: (change) => changes.push(change), transport: "websocket" });
    for (let round = 0; round < 5; round++) {
      await vi.advanceTimersByTimeAsync(2000);
      relay.links.at(-1)!.end(code, "");
    }
    await vi.advanceTimersByTimeAsync(0);
    const delays = changes.filter(({ state }) => state === "waiting").map(({ retryIn }) => retryIn!);
    expect(delays).toHaveLength(5);
    expect(Math.max(...delays)).toBeLessThanOrEqual(100);
  });

  test("is replaced soon while the relay is away, if finding that costs nothing", async () => {
    relay.install();
    const changes: StateChange[] = [];
    await attach("https://relay.example/", { onstate: (change) => changes.push(change), transport: "websocket" });
    relay.install({ webSocket: false });
    relay.links[0]!.end(1006, "");
    await vi.advanceTimersByTimeAsync(60_000);
    const delays = changes.filter(({ state }) => state === "waiting").map(({ retryIn }) => retryIn!);
    expect(delays[0]!).toBeLessThanOrEqual(100);
    expect(Math.max(...delays.slice(1, 41))).toBeLessThanOrEqual(313);
    expect(delays.at(-1)!).toBeGreaterThan(5000);
  });

  test("is not sought by WebTransport while the relay that has told its hashes does not answer", async () => {
    relay.install({ hashes: { current: { hash: "ab".repeat(32), pinned: true }, next: null } });
    const nic = await attach("https://relay.example/");
    vi.stubGlobal("fetch", () => Promise.reject(new Error("connection refused")));
    relay.links[0]!.end(0, "");
    await vi.advanceTimersByTimeAsync(20_000);
    expect(nic.state).toBe("waiting");
    expect(relay.links).toHaveLength(1);
    vi.stubGlobal("fetch", () => Promise.resolve({ json: () => Promise.resolve({ current: null, next: null }) }));
    await vi.advanceTimersByTimeAsync(30_000);
    expect(nic.state).toBe("open");
    expect(relay.links).toHaveLength(2);
  });

  test("is sought ever less often while the relay is there and refuses, but soon while it is away", async () => {
    const hashes = { current: { hash: HASH, pinned: true }, next: null };
    relay.install({ hashes });
    const changes: StateChange[] = [];
    const nic = await attach("https://relay.example/", { onstate: (change) => changes.push(change) });
    relay.install();
    relay.links[0]!.end(9, "the token has expired");
    await vi.advanceTimersByTimeAsync(5_000);
    relay.install({ hashes, webTransport: false, webSocket: false });
    await vi.advanceTimersByTimeAsync(20_000);
    const waits = changes.filter(({ state }) => state === "waiting").slice(1);
    const [away, refused] = [true, false].map((isAway) => waits.filter(({ reason }) => (reason === "the relay does not answer") === isAway));
    expect(away!.length).toBeGreaterThan(10);
    expect(Math.max(...away!.map(({ retryIn }) => retryIn!))).toBeLessThanOrEqual(313);
    expect(refused!.length).toBeGreaterThan(4);
    for (const [number, { retryIn }] of refused!.entries()) {
      expect(retryIn).toBeGreaterThanOrEqual(187 * 2 ** number);
      expect(retryIn).toBeLessThanOrEqual(313 * 2 ** number);
    }
    relay.install({ hashes });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(nic.state).toBe("open");
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

  test("is watched for from when another relay is named, and found within 8 s", async () => {
    relay.install();
    const nic = await attach("https://relay.example/");
    const usual = relay.answer;
    relay.answer = () => {};
    relay.links[0]!.deliver(control({ type: "Assigned", ...ASSIGNED, urls: ["https://relay.example", "https://other.example"] }));
    await vi.advanceTimersByTimeAsync(8_100);
    relay.answer = usual;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(nic.state).toBe("open");
    expect(relay.links.map(({ url }) => new URL(url).host)).toEqual(["relay.example", "other.example"]);
  });

  describe.each(["webtransport", "websocket"] as const)("over %s", (transport) => {
    test("is not made of timers that run once a minute, as in a hidden page", async () => {
      relay.install();
      const timeout = globalThis.setTimeout;
      vi.stubGlobal("setTimeout", (callback: () => void, delay: number) => timeout(callback, Math.max(delay, 60_000)));
      const nic = await attach("https://relay.example/", { transport });
      await vi.advanceTimersByTimeAsync(600_000);
      expect(relay.links).toHaveLength(1);
      expect(nic.state).toBe("open");
    });

    test("is not made of a computer's sleep", async () => {
      relay.install();
      const nic = await attach("https://relay.example/", { transport });
      for (let night = 0; night < 3; night++) {
        vi.setSystemTime(Date.now() + 8 * 3600_000);
        await vi.advanceTimersByTimeAsync(20_000);
      }
      expect(relay.links).toHaveLength(1);
      expect(nic.state).toBe("open");
    });

    test("is replaced after a minute of silence, although it does not end", async () => {
      relay.install();
      const changes: StateChange[] = [];
      await attach("https://relay.example/", { transport, onstate: (change) => changes.push(change) });
      relay.answer = () => {};
      await vi.advanceTimersByTimeAsync(65_000);
      expect(changes.find(({ state }) => state === "waiting")!.reason).toBe("the relay is silent");
    });
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

describe("a card with several relays", () => {
  const urls = ["https://a.example/", "https://b.example/"];
  const hosts = (): string[] => relay.links.map(({ url }) => new URL(url).host);

  test("goes to the next when the first is not there", async () => {
    relay.install();
    const usual = relay.answer;
    relay.answer = (link, datagram) => {
      if (link.url.includes("a.example")) link.end(1, "away");
      else usual(link, datagram);
    };
    const nic = await attach(urls);
    expect(nic.state).toBe("open");
    expect(hosts()).toEqual(["a.example", "b.example"]);
  });

  test.each([[urls], [urls[0]!]])("leaves one that is silent within ten seconds, with secret and address: %j", async (given) => {
    relay.install();
    relay.resume = "5ec2e7";
    relay.urls = urls;
    const usual = relay.answer;
    const nic = await attach(given);
    const mac = [...nic.mac];
    await vi.advanceTimersByTimeAsync(600_000);
    expect(hosts()).toEqual(["a.example"]);
    relay.answer = (link, datagram) => {
      if (!link.url.includes("a.example")) usual(link, datagram);
    };
    await vi.advanceTimersByTimeAsync(9_000);
    expect(nic.state).toBe("open");
    expect(hosts()).toEqual(["a.example", "b.example"]);
    expect(relay.links[1]!.sent[0]).toEqual(control({ type: "Register", mac, resume: "5ec2e7", ip: [10, 0, 2, 10] }));
  });
});

test("a new connection shows that the MAC is this card's, and what address it had", async () => {
  relay.install();
  relay.resume = "5ec2e7";
  const nic = await attach("https://relay.example/", {});
  const mac = [...nic.mac!];
  expect(relay.links[0]!.sent[0]).toEqual(control({ type: "Register", mac }));
  relay.links[0]!.end(1, "network gone");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(relay.links[1]!.sent[0]).toEqual(control({ type: "Register", mac, resume: "5ec2e7", ip: [10, 0, 2, 10] }));
});

describe("a card of a chosen MAC", () => {
  const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);

  test("that another one had already goes on under another", async () => {
    relay.install();
    const first = await attach("https://relay.example/", { mac });
    const second = await attach("https://relay.example/", { mac });
    await vi.advanceTimersByTimeAsync(600_000);
    expect([first.state, second.state]).toEqual(["open", "open"]);
    expect([...first.mac]).toEqual([...mac]);
    expect([...second.mac]).not.toEqual([...mac]);
    expect(relay.links.length).toBeLessThanOrEqual(4);
    // Its program need not know.
    second.send(Uint8Array.of(...frame(6), ...mac, ...frame(48)));
    expect(relay.links.at(-1)!.sent.at(-1)!.slice(7, 13)).toEqual(second.mac);
  });
});

test("closing as soon as it is open leaves nothing behind", async () => {
  relay.install();
  let nic: NetworkInterface | undefined;
  const onstate = ({ state }: StateChange): void => {
    if (state === "open") nic!.close();
  };
  nic = await attach("https://relay.example/", { mac: "guest", transport: "websocket", onstate });
  nic.send(frame(60));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(nic.state).toBe("closed");
  expect(nic.statistics).toMatchObject({ framesSent: 0, framesDropped: 1 });
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
