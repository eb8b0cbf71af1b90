/**
 * Which of a LAN's relays a card goes to: those that it was given, and those that they name with its address
 * (`https://HOST[:PORT]`, the relay's own first). Path and query, which say the room, are those of the URL in use.
 */

import { Dialer } from "./dialer.js";
import type { DialOptions } from "./dialer.js";

export class Places {
  /** Names the LAN, whichever relay is in use. */
  readonly place: string;
  readonly #options: DialOptions;
  readonly #given: readonly Dialer[];
  #all: readonly Dialer[];
  #current: Dialer;

  /** Throws TypeError for arguments that are wrong. */
  constructor(urls: string | readonly string[], options: DialOptions) {
    const given = typeof urls === "string" ? [urls] : urls;
    this.#options = options;
    this.#given = given.map((url) => new Dialer(url, this.#options));
    const [first] = this.#given;
    if (first === undefined) throw new TypeError("no relay's address");
    if (this.#given.some(({ raw }) => raw !== first.raw)) throw new TypeError("all addresses must say the same encapsulation");
    this.place = first.place;
    this.#all = this.#takeAll(this.#given);
    this.#current = first;
  }

  /** The one in use. */
  get current(): Dialer {
    return this.#current;
  }

  get length(): number {
    return this.#all.length;
  }

  /** Takes what a relay names, in place of what was named before; what is no URL is left out. */
  learn(told: readonly string[]): void {
    const known = new Map([...this.#all, this.#current].map((dialer) => [dialer.address, dialer]));
    const named = told.flatMap((url) => {
      const address = this.#current.addressAt(url);
      if (address === undefined) return [];
      return [known.get(address) ?? new Dialer(address, this.#options)];
    });
    // The relay's other name for itself: the last to go to.
    if (named.length > 0 && named[0] !== this.#current) named.push(named.shift()!);
    this.#all = this.#takeAll([...new Set([...this.#given, this.#current, ...named])]);
  }

  /** Has each know whether there are others. */
  #takeAll(all: readonly Dialer[]): readonly Dialer[] {
    for (const dialer of all) dialer.hasOthers = all.length > 1;
    return all;
  }

  /** Uses the next one. */
  goOn(): void {
    this.#current = this.#all[(this.#all.indexOf(this.#current) + 1) % this.#all.length]!;
  }
}
