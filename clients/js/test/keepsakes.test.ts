import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { NetworkInterface, Options } from "../src/index.js";
import { FakeRelay } from "./fakes.js";

const URL_ = "https://relay.example/room/lab?token=secret";
const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);

let relay: FakeRelay;
let tabs: Tab[];

/** A browser's tab: its storage, and the page that it shows. */
class Tab {
  readonly stored = new Map<string, string>();
  #listeners = new Map<string, (event: object) => void>();
  #module!: typeof import("../src/index.js");
  readonly nics: NetworkInterface[] = [];

  constructor(copyOf?: Tab) {
    if (copyOf !== undefined) for (const [key, value] of copyOf.stored) this.stored.set(key, value);
    tabs.push(this);
  }

  async load(): Promise<this> {
    vi.stubGlobal("document", {});
    vi.stubGlobal("sessionStorage", {
      getItem: (key: string) => this.stored.get(key) ?? null,
      setItem: (key: string, value: string) => void this.stored.set(key, value),
      removeItem: (key: string) => void this.stored.delete(key),
    });
    vi.stubGlobal("addEventListener", (type: string, listener: (event: object) => void) => this.#listeners.set(type, listener));
    vi.resetModules();
    this.#module = await import("../src/index.js");
    return this;
  }

  async connect(options: Options = {}, url = URL_): Promise<NetworkInterface> {
    const connecting = this.#module.connect(url, { transport: "websocket", ...options });
    await vi.advanceTimersByTimeAsync(1000);
    const nic = await connecting;
    this.nics.push(nic);
    return nic;
  }

  /** The same of a page that is left before the card is there. */
  begin(options: Options = {}): void {
    this.#module.connect(URL_, { transport: "websocket", ...options }).catch(() => {});
  }

  fire(type: string, event: object = {}): void {
    this.#listeners.get(type)!(event);
  }

  /** Leaves the page; nothing of it runs any more. */
  leave(): void {
    this.fire("pagehide");
    vi.clearAllTimers();
    this.nics.length = 0;
  }
}

function registers(): Record<string, unknown>[] {
  return relay.links.map(({ sent }) => JSON.parse(new TextDecoder().decode(sent[0]!.subarray(1))) as Record<string, unknown>);
}

beforeEach(() => {
  vi.useFakeTimers();
  tabs = [];
  relay = new FakeRelay();
  relay.resume = "5ec2e7";
  relay.install();
});

afterEach(() => {
  for (const tab of tabs) for (const nic of tab.nics) nic.close();
  vi.clearAllTimers();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a page that is loaded again", () => {
  test("shows that its MAC is its own, and what address it had", async () => {
    const tab = await new Tab().load();
    await tab.connect({ mac: MAC });
    tab.leave();
    await tab.load();
    await tab.connect({ mac: MAC });
    expect(registers()).toEqual([
      { type: "Register", mac: [...MAC] },
      { type: "Register", mac: [...MAC], resume: "5ec2e7", ip: [10, 0, 2, 10] },
    ]);
  });

  test("has the MAC again that was made up, each of its cards its own", async () => {
    const tab = await new Tab().load();
    const before = [await tab.connect(), await tab.connect()].map(({ mac }) => [...mac]);
    tab.leave();
    await tab.load();
    const after = [await tab.connect(), await tab.connect(), await tab.connect()].map(({ mac }) => [...mac]);
    expect(after.slice(0, 2)).toEqual(before);
    expect(before).not.toContainEqual(after[2]);
    expect(registers().slice(2).map(({ resume }) => resume)).toEqual(["5ec2e7", "5ec2e7", undefined]);
  });

  test("also after it was loaded twice before the machine was started", async () => {
    const tab = await new Tab().load();
    await tab.connect({ mac: MAC });
    tab.leave();
    await tab.load();
    tab.leave();
    await tab.load();
    await tab.connect({ mac: MAC });
    expect(registers().at(-1)!["resume"]).toBe("5ec2e7");
  });

  describe.each([["a MAC that was made up", {}], ["a chosen MAC", { mac: MAC }]])("of %s", (_, options) => {
    test("has it, and its secret, after a page that was left before there was a connection", async () => {
      const tab = await new Tab().load();
      const { mac } = await tab.connect(options);
      tab.leave();
      await tab.load();
      relay.install({ webSocket: false });
      tab.begin(options);
      tab.leave();
      await tab.load();
      relay.install();
      expect([...(await tab.connect(options)).mac]).toEqual([...mac]);
      expect(registers().at(-1)!["resume"]).toBe("5ec2e7");
    });

    test("has it, and its secret, after a page that was left before the relay had answered", async () => {
      const tab = await new Tab().load();
      const { mac } = await tab.connect(options);
      tab.leave();
      await tab.load();
      const usual = relay.answer;
      relay.answer = () => {};
      tab.begin(options);
      await vi.advanceTimersByTimeAsync(0);
      expect(registers()).toHaveLength(2);
      tab.leave();
      relay.answer = usual;
      await tab.load();
      expect([...(await tab.connect(options)).mac]).toEqual([...mac]);
      expect(registers().at(-1)!["resume"]).toBe("5ec2e7");
    });
  });

  test.each([
    ["room", { url: "https://relay.example/room/other", mac: MAC }],
    ["room, named in the query", { url: "https://relay.example/room/lab?room=other", mac: MAC }],
    ["relay", { url: "https://other.example/room/lab", mac: MAC }],
    ["MAC", { url: URL_, mac: Uint8Array.of(0x52, 0x54, 0, 1, 2, 4) }],
  ])("says nothing of it to another %s", async (_, { url, mac }) => {
    const tab = await new Tab().load();
    await tab.connect({ mac: MAC });
    tab.leave();
    await tab.load();
    await tab.connect({ mac }, url);
    expect(registers().at(-1)).toEqual({ type: "Register", mac: [...mac] });
  });

  test("is the same whatever token the URL has", async () => {
    const tab = await new Tab().load();
    await tab.connect({ mac: MAC });
    tab.leave();
    expect([...tab.stored.values()].join()).not.toContain("token");
    await tab.load();
    await tab.connect({ mac: MAC }, "https://relay.example/room/lab?token=another");
    expect(registers().at(-1)!["resume"]).toBe("5ec2e7");
  });

  test("has told the relay that it will be back", async () => {
    const tab = await new Tab().load();
    await tab.connect({ mac: MAC });
    const ended = vi.spyOn(relay.links[0]!, "end");
    tab.leave();
    expect(ended).toHaveBeenCalledWith(4010, "the page is left");
    expect(relay.said(relay.links[0]!)).toEqual(["Register"]);
  });

  test("and was closed by its program before has nothing", async () => {
    const tab = await new Tab().load();
    (await tab.connect({ mac: MAC })).close();
    tab.leave();
    expect([...tab.stored.values()].join()).not.toContain("5ec2e7");
  });
});

describe("the storage", () => {
  test("has nothing while a page is shown, so that tabs which copy it share nothing", async () => {
    const tab = await new Tab().load();
    const nic = await tab.connect();
    tab.leave();
    expect(tab.stored.size).toBe(1);
    await tab.load();
    await tab.connect();
    expect(tab.stored.size).toBe(0);
    const copy = await new Tab(tab).load();
    const other = await copy.connect();
    expect([...other.mac]).not.toEqual([...nic.mac]);
    expect(registers().at(-1)).toEqual({ type: "Register", mac: [...other.mac] });
    await vi.advanceTimersByTimeAsync(600_000);
    expect(relay.links).toHaveLength(3);
  });

  test("is emptied again by a page that was only put aside, which goes on", async () => {
    const tab = await new Tab().load();
    const nic = await tab.connect({ mac: MAC });
    tab.fire("pagehide");
    expect(tab.stored.size).toBe(1);
    tab.fire("pageshow", { persisted: true });
    expect(tab.stored.size).toBe(0);
    await vi.advanceTimersByTimeAsync(1000);
    expect(nic.state).toBe("open");
    expect(registers().at(-1)!["resume"]).toBe("5ec2e7");
  });

  test("is left by such a page at once also if its relay was away for long before", async () => {
    const tab = await new Tab().load();
    const nic = await tab.connect({ mac: MAC });
    await relay.beAwayForLong();
    expect(nic.state).toBe("open");
    tab.fire("pagehide");
    tab.fire("pageshow", { persisted: true });
    await vi.advanceTimersByTimeAsync(1000);
    expect(nic.state).toBe("open");
    expect(relay.links).toHaveLength(3);
  });

  test.each(["nonsense", "[]", "{}", "[1, null]", '[{"place":"relay.example/room/lab","mac":[1]}]', '[{"place":"relay.example/room/lab","mac":[82,84,0,1,2,3],"secret":"x","random":true,"ip":[1,2,3,"4"]}]'])(
    "may hold what it will: %s",
    async (text) => {
      const tab = new Tab();
      tab.stored.set("vmrelay-cards", text);
      await tab.load();
      await tab.connect({ mac: MAC });
      expect(registers()).toEqual([{ type: "Register", mac: [...MAC] }]);
    },
  );

  test.each(["getItem", "setItem", "removeItem"])("may refuse %s", async (what) => {
    const tab = new Tab();
    await tab.load();
    vi.stubGlobal("sessionStorage", { ...sessionStorage, [what]: () => expect.fail("not for this page") });
    vi.resetModules();
    const { connect } = await import("../src/index.js");
    const connecting = connect(URL_, { transport: "websocket", mac: MAC });
    await vi.advanceTimersByTimeAsync(1000);
    const nic = await connecting;
    tab.fire("pagehide");
    nic.close();
  });
});
