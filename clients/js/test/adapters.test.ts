import { afterEach, expect, test, vi } from "vitest";
import { attachV86, connect, connectV86, connectVirtio } from "../src/index.js";
import { FakeRelay } from "./fakes.js";

const frame = Uint8Array.from({ length: 42 }, (_, at) => at);

afterEach(() => {
  vi.unstubAllGlobals();
});

test("a v86 machine's card sends and receives by its bus", async () => {
  const relay = new FakeRelay();
  relay.install();
  const listeners = new Set<(frame: Uint8Array) => void>();
  const received: Uint8Array[] = [];
  const emulator = {
    add_listener: (_: string, listener: (frame: Uint8Array) => void) => void listeners.add(listener),
    remove_listener: (_: string, listener: (frame: Uint8Array) => void) => void listeners.delete(listener),
    bus: { send: (_: string, bytes: Uint8Array) => void received.push(bytes) },
  };
  const nic = await connect("https://relay.example/", { transport: "websocket" });
  const detach = attachV86(emulator, nic);
  for (const listener of listeners) listener(frame);
  relay.links[0]!.deliver(Uint8Array.of(1, ...frame));
  expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...frame));
  expect(received).toEqual([frame]);
  detach();
  expect(listeners.size).toBe(0);
  nic.close();

  (await connectV86(emulator, "https://relay.example/", { transport: "websocket" })).close();
  expect(listeners.size).toBe(1);
});

test.each([0, 10, 12] as const)("a virtio device has headers of %i bytes", async (headerLength) => {
  const relay = new FakeRelay();
  relay.install();
  const received: Uint8Array[] = [];
  const port = await connectVirtio("https://relay.example/", (buffer) => received.push(buffer), {
    headerLength,
    transport: "websocket",
  });
  port.transmit(Uint8Array.of(...new Array<number>(headerLength).fill(0), ...frame));
  relay.links[0]!.deliver(Uint8Array.of(1, ...frame));
  expect(relay.links[0]!.sent.at(-1)).toEqual(Uint8Array.of(1, ...frame));
  const header = { 0: [], 10: new Array<number>(10).fill(0), 12: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0] }[headerLength];
  expect([...received[0]!]).toEqual([...header, ...frame]);
  port.nic.close();
});
