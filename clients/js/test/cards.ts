/** For tests of cards: a relay for each, a clock that they move, and nothing left behind. */

import { afterEach, beforeEach, expect, vi } from "vitest";
import { connect } from "../src/index.js";
import type { NetworkInterface } from "../src/index.js";
import { FakeRelay } from "./fakes.js";

/** Milliseconds; connecting fails for good before. */
export const PATIENCE = 30_000;
export const frame = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at % 251);

export let relay: FakeRelay;
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

/** Has a card closed when its test is over. */
export const closeAtTheEnd = (nic: NetworkInterface): void => void nics.push(nic);

/** Connects while the fake clock runs. */
export async function attach(...arguments_: Parameters<typeof connect>): Promise<NetworkInterface> {
  const outcome = connect(...arguments_).then(
    (nic) => {
      closeAtTheEnd(nic);
      return nic;
    },
    (error: unknown) => error as Error,
  );
  await vi.advanceTimersByTimeAsync(PATIENCE);
  const result = await outcome;
  if (result instanceof Error) throw result;
  return result;
}
