/** Connects a v86 machine's network card: its bus says `net0-send`, and hears `net0-receive`. */

import { NetworkInterface } from "./client.js";
import type { Options } from "./client.js";
import { CardMac } from "./mac.js";

/** What is used of the class `V86`. Its package describes no bus, but it has one from the start. */
export interface V86Like {
  add_listener(event: "net0-send", listener: (frame: Uint8Array) => void): void;
  remove_listener(event: "net0-send", listener: (frame: Uint8Array) => void): void;
  readonly bus?: { send(event: "net0-receive", frame: Uint8Array): void };
}

/** What else is used where it is there, and not described either. */
interface Internals {
  /** Made by the constructor. */
  readonly emulator_bus?: object;
  /** Made when the machine has been loaded. */
  readonly v86?: { readonly cpu?: { readonly devices?: Partial<Record<"net" | "virtio_net", { mac?: Uint8Array }>> } };
  add_listener(event: "net0-mac", listener: (mac: string) => void): void;
  remove_listener(event: "net0-mac", listener: (mac: string) => void): void;
}

/** Milliseconds after which a machine that is still loading its files is not waited for any more. */
const LOADING_PATIENCE = 10_000;

const attached = new WeakMap<V86Like, () => void>();

/**
 * Joins a machine (with `net_device: { type: "virtio" }` or `"ne2k"` and no `relay_url`) and a network card,
 * whose `onframe` is the machine's from now on; a card that the machine had before is parted from it. Returns
 * what parts them again. The card should have the machine's MAC: connect it with `mac: "guest"`.
 */
export function attachV86(emulator: V86Like, nic: NetworkInterface): () => void {
  const internals = emulator as unknown as Internals;
  const { bus } = emulator;
  if (typeof bus?.send !== "function") throw new TypeError("this v86 has no bus: there is no way into its network card");
  attached.get(emulator)?.();
  let latest = "";
  /** A frame, or a MAC, which is text as in "00:22:15:ab:cd:ef". */
  const hear = (said: Uint8Array | string): void => {
    if (typeof said !== "string") {
      nic.send(said);
      return;
    }
    latest = said;
    // A machine that is restored from a state names two in a row: the one that its device was made with, too.
    queueMicrotask(() => {
      if (latest === said) nic.deviceHas(Uint8Array.from(said.split(":"), (byte) => parseInt(byte, 16)));
    });
  };
  const known = macOf(internals);
  if (known !== undefined) nic.deviceHas(known);
  emulator.add_listener("net0-send", hear);
  internals.add_listener("net0-mac", hear);
  nic.onframe = (frame) => bus.send("net0-receive", frame);
  const part = (): void => {
    emulator.remove_listener("net0-send", hear);
    internals.remove_listener("net0-mac", hear);
    nic.onframe = () => {};
    if (attached.get(emulator) === part) attached.delete(emulator);
  };
  attached.set(emulator, part);
  return part;
}

/**
 * Connects to the relay at `url` under the machine's own MAC, and attaches the machine. Resolves once it has
 * an address; a machine that shows no MAC soon gets one when it does (`onassigned` tells). With `mac` the card
 * has that one on the LAN, whatever the machine uses.
 */
export async function connectV86(
  emulator: V86Like,
  url: string | readonly string[],
  options: Omit<Options, "onframe"> = {},
): Promise<NetworkInterface> {
  const nic = new NetworkInterface(url, options, new CardMac(options.mac ?? "guest", true));
  const part = attachV86(emulator, nic);
  const internals = emulator as unknown as Internals;
  const loads = internals.emulator_bus !== undefined && macOf(internals) === undefined;
  try {
    await nic.start(loads ? LOADING_PATIENCE : undefined);
  } catch (error) {
    part();
    throw error;
  }
  return nic;
}

/** The MAC of the machine's network card, where one can be seen. */
function macOf({ v86 }: Internals): Uint8Array | undefined {
  const devices = v86?.cpu?.devices;
  return (devices?.virtio_net ?? devices?.net)?.mac;
}
