/**
 * The MAC that a card has on the LAN, and the one that its guest uses.
 *
 * Theory of operation. A guest's frames say which MAC it has, and that one is registered, so that one machine
 * takes one address of the relay's pool. The two differ, and are translated, when the card's MAC is somebody
 * else's choice: the caller's, or that of an emulator that restored its guest from a state that others share,
 * or the relay's, when another session has the guest's. A second source address is a guest that changed its
 * MAC, and is followed; when a former one comes back, it is a bridge, and nothing is followed any more.
 */

import { renameDestination, renameSource } from "./translate.js";

export const MAC_LENGTH = 6;
/** Where a frame names its sender. */
const SOURCE = 6;
/** Changes that are believed without the emulator's word; each costs a new session. */
const MAX_CHANGES = 4;

/** A locally administered one, of the range that virtual machines have. */
export function randomMac(): Uint8Array {
  // Node 18 has no global `crypto`, and this is no secret.
  const random = Array.from({ length: 3 }, () => Math.floor(Math.random() * 256));
  return Uint8Array.of(0x52, 0x54, 0x00, ...random);
}

/** Whether it is a station's: six bytes, not multicast and not zero. */
function isStation(mac: Uint8Array): boolean {
  return mac.length === MAC_LENGTH && (mac[0]! & 1) === 0 && mac.some((byte) => byte !== 0);
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Whether `mac` stands in `bytes` at `at`. */
export function isAt(bytes: Uint8Array, at: number, mac: Uint8Array): boolean {
  for (let index = 0; index < MAC_LENGTH; index++) if (bytes[at + index] !== mac[index]) return false;
  return true;
}

/** Knows which MAC a card has; hears every frame of its guest's. */
export class CardMac {
  /** Whether the card takes the guest's MAC; else it was given one. */
  readonly follows: boolean;
  readonly #watches: boolean;
  #lan: Uint8Array | undefined;
  #guest: Uint8Array | undefined;
  #translates = false;
  readonly #former = new Set<string>();
  #bridges = false;

  /**
   * The card's MAC; with "guest", its guest's own. `watches` says that there is one guest, which may use
   * another MAC than the card is given. Throws TypeError for what is no card's MAC.
   */
  constructor(mac: Uint8Array | "guest", watches = mac === "guest") {
    if (mac !== "guest" && !isStation(mac)) throw new TypeError("a card's MAC is six bytes, not multicast, not zero");
    this.follows = mac === "guest";
    this.#watches = watches;
    this.#lan = mac === "guest" ? undefined : mac.slice();
  }

  /** On the LAN; undefined before the guest's is known. */
  get lan(): Uint8Array | undefined {
    return this.#lan;
  }

  /** Takes note of who sends a frame; says whether the card's MAC is another one now. */
  hear(frame: Uint8Array): boolean {
    if (!this.#watches || (this.#guest !== undefined && isAt(frame, SOURCE, this.#guest))) return false;
    const source = frame.slice(SOURCE, SOURCE + MAC_LENGTH);
    if (!isStation(source)) return false;
    if (this.#guest === undefined) return this.#take(source, this.#lan ?? source);
    if (!this.follows || this.#bridges) return false;
    this.#bridges = this.#former.has(formatMac(source)) || this.#former.size >= MAX_CHANGES;
    if (this.#bridges) return false;
    this.#former.add(formatMac(this.#guest));
    return this.#take(source, source);
  }

  /** The emulator says which MAC the guest's device has; says whether the card's is another one now. */
  deviceHas(mac: Uint8Array): boolean {
    if (!this.#watches || !isStation(mac)) return false;
    // A guest that was restored may go on with the one that it had: its next frame tells.
    return this.#take(undefined, this.follows ? mac.slice() : this.#lan!);
  }

  /** The guest's MAC is another session's: the card goes on under one of its own. */
  yield(): void {
    this.#take(this.#guest ?? this.#lan, randomMac());
  }

  /** A frame of the guest's as the LAN sees it; the same one where nothing is translated. */
  toLan(frame: Uint8Array): Uint8Array {
    if (!this.#translates || !isAt(frame, SOURCE, this.#guest!)) return frame;
    return renameSource(frame, this.#guest!, this.#lan!);
  }

  /** A frame of the LAN's as the guest sees it. */
  toGuest(frame: Uint8Array): Uint8Array {
    return this.#translates ? renameDestination(frame, this.#lan!, this.#guest!) : frame;
  }

  #take(guest: Uint8Array | undefined, lan: Uint8Array): boolean {
    const isNews = this.#lan === undefined || !isAt(lan, 0, this.#lan);
    this.#guest = guest;
    this.#lan = lan;
    this.#translates = guest !== undefined && !isAt(guest, 0, lan);
    return isNews;
  }
}
