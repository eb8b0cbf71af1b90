/** Connects a v86 machine's network card: its bus says `net0-send`, and hears `net0-receive`. */

import { connect } from "./client.js";
import type { NetworkInterface, Options } from "./client.js";

/** What is used of v86's `V86`. */
export interface V86Like {
  add_listener(event: "net0-send", listener: (frame: Uint8Array) => void): void;
  remove_listener(event: "net0-send", listener: (frame: Uint8Array) => void): void;
  readonly bus: { send(event: "net0-receive", frame: Uint8Array): void };
}

/**
 * Joins a machine (with `net_device: { type: "virtio" }` or `"ne2k"` and no `relay_url`) and a network card,
 * whose `onframe` is the machine's from now on. Returns what parts them again.
 */
export function attachV86(emulator: V86Like, nic: NetworkInterface): () => void {
  const send = (frame: Uint8Array): void => nic.send(frame);
  emulator.add_listener("net0-send", send);
  nic.onframe = (frame) => emulator.bus.send("net0-receive", frame);
  return () => {
    emulator.remove_listener("net0-send", send);
    nic.onframe = () => {};
  };
}

/** Connects to the relay at `url`, and attaches the machine. */
export async function connectV86(
  emulator: V86Like,
  url: string,
  options: Omit<Options, "onframe"> = {},
): Promise<NetworkInterface> {
  const nic = await connect(url, options);
  attachV86(emulator, nic);
  return nic;
}
