/**
 * Connects an emulator whose virtio-net device calls back with what its guest sends, as most written for the
 * web do: a buffer that starts with the virtio-net header (virtio 1.2, section 5.1.6).
 */

import { NetworkInterface } from "./client.js";
import type { Options } from "./client.js";
import { CardMac } from "./mac.js";

export interface VirtioOptions extends Omit<Options, "onframe"> {
  /** Bytes of virtio-net header before each frame: 12 (virtio 1.0 and later), 10 (legacy), 0 (none). */
  headerLength?: 0 | 10 | 12 | undefined;
}

export interface VirtioPort {
  readonly nic: NetworkInterface;
  /** To be called with each buffer of the transmit queue. */
  transmit(buffer: Uint8Array): void;
}

const HEADER_LENGTHS: readonly number[] = [0, 10, 12];
const NUM_BUFFERS = 10;

/**
 * Connects a device under its guest's own MAC, or under `mac` whatever the guest uses. `receive` is called
 * with buffers for the receive queue. No offloads may have been negotiated.
 */
export async function connectVirtio(
  url: string | readonly string[],
  receive: (buffer: Uint8Array) => void,
  options: VirtioOptions = {},
): Promise<VirtioPort> {
  const { headerLength = 12, ...rest } = options;
  if (!HEADER_LENGTHS.includes(headerLength)) throw new TypeError(`no virtio-net header has ${headerLength} bytes`);
  const nic = new NetworkInterface(url, rest, new CardMac(rest.mac ?? "guest", true));
  nic.onframe = (frame) => {
    const buffer = new Uint8Array(headerLength + frame.length);
    // The frame is in one buffer; the field exists in the longer header only.
    if (headerLength > NUM_BUFFERS) buffer[NUM_BUFFERS] = 1;
    buffer.set(frame, headerLength);
    receive(buffer);
  };
  await nic.start();
  return { nic, transmit: (buffer) => nic.send(buffer.subarray(headerLength)) };
}
