import { afterEach, expect, test, vi } from "vitest";
import { Places } from "../src/places.js";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** All that are gone to, one after the other, until the first comes again. */
function roundOf(places: Places): string[] {
  const first = places.current;
  const urls = [];
  do {
    urls.push(places.current.address);
    places.goOn();
  } while (places.current !== first);
  return urls;
}

test("given relays are gone to in turn", () => {
  const places = new Places(["https://a:1/room/lab", "http://127.0.0.1:2/room/lab"], {});
  expect(roundOf(places)).toEqual(["https://a:1/room/lab", "http://127.0.0.1:2/room/lab"]);
  expect(places.place).toBe("a:1/room/lab");
});

test.each([[[]], [["ftp://a/"]], [["https://a/", "https://a/?encap=raw"]], [["nothing"]]])("%j are refused", (urls) => {
  expect(() => new Places(urls, {})).toThrow(TypeError);
});

test("what a relay names has the room of the URL in use, and replaces what was named before", () => {
  const places = new Places("https://a:1/room/lab?x=1", {});
  places.learn(["https://a:1", "https://b"]);
  expect(roundOf(places)).toEqual(["https://a:1/room/lab?x=1", "https://b/room/lab?x=1"]);
  places.goOn();
  const inUse = places.current;
  places.learn(["https://b", "https://c:3"]);
  expect(places.current).toBe(inUse);
  expect(roundOf(places).map((url) => new URL(url).host)).toEqual(["b", "c:3", "a:1"]);
  places.learn([]);
  expect(roundOf(places).map((url) => new URL(url).host)).toEqual(["b", "a:1"]);
});

test("the relay's own name for itself is the last to go to", () => {
  const places = new Places("wss://127.0.0.1:1/", {});
  places.learn(["https://a:1", "https://b:1"]);
  expect(roundOf(places)).toEqual(["wss://127.0.0.1:1/", "wss://b:1/", "wss://a:1/"]);
});

test("no other name of the machine in use is gone to before other machines", () => {
  const places = new Places("https://a2:1/", {});
  places.learn(["https://a1:1", "https://b1:1", "https://a2:1", "https://b2:1"]);
  expect(roundOf(places)).toEqual(["https://a2:1/", "https://b1:1/", "https://b2:1/", "https://a1:1/"]);
});

test("what is no URL of a relay is left out", () => {
  const places = new Places("https://a:1/", {});
  places.learn(["http://b", "javascript:alert(1)", "b", "https://"]);
  expect(places.length).toBe(1);
});

test.each([
  [undefined, 5000, 3000],
  [700, 700, 700],
])("a relay is waited for less long where there is another one: of %s ms", async (timeout, alone, withOthers) => {
  vi.stubGlobal("fetch", () => Promise.reject(new Error("away")));
  const waited = vi.spyOn(AbortSignal, "timeout");
  const places = new Places("https://a:1/", { transport: "webtransport", ...(timeout === undefined ? {} : { timeout }) });
  const given = places.current;
  for (const told of [[], ["https://a:1", "https://b:1"], []]) {
    places.learn(told);
    await expect(given.open(() => undefined)).rejects.toThrow();
    expect(new Set(waited.mock.calls.flat())).toEqual(new Set([told.length > 0 ? withOthers : alone]));
    waited.mockClear();
  }
});
