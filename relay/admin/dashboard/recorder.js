// Records what passes, and offers it as a file for Wireshark.

import { element, make, offer, say } from "./dom.js";
import { amount } from "./format.js";
import { nameOf } from "./tables.js";

const MOST = 64 * 1024 * 1024;

export class Recorder {
  #relay;
  #roomOf;
  #form = element("record");
  #ending;
  #kept;

  constructor(relay, roomOf) {
    this.#relay = relay;
    this.#roomOf = roomOf;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#record();
    });
    this.#form.elements.stop.addEventListener("click", () => this.#ending.abort());
  }

  offerSessions(peers) {
    offer(this.#form.elements.peer, [["", "all of the room"], ...peers.map((peer) => [String(peer.port), `${peer.port}: ${nameOf(peer)}`])]);
  }

  /** Leads to the form, with a session chosen. */
  choose({ port }) {
    this.#form.elements.peer.value = String(port);
    this.#form.elements.filter.focus();
  }

  async #record() {
    const { peer, filter, seconds, start, stop } = this.#form.elements;
    const told = element("recorded");
    this.#ending = new AbortController();
    const timer = setTimeout(() => this.#ending.abort(), 1000 * seconds.valueAsNumber);
    const pieces = [];
    let size = 0;
    [start.disabled, stop.disabled] = [true, false];
    say(told, "recording …");
    stop.focus();
    try {
      const query = { room: this.#roomOf(), peer: peer.value, filter: filter.value.trim() };
      for await (const piece of this.#relay.pieces("/v1/capture", query, this.#ending.signal)) {
        pieces.push(piece);
        size += piece.length;
        say(told, `recording: ${amount(size, "B")}`);
        if (size >= MOST) break;
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        say(told, `not recorded: ${error.message}`);
        return;
      }
    } finally {
      clearTimeout(timer);
      [start.disabled, stop.disabled] = [false, true];
    }
    this.#offer(new Blob(pieces, { type: "application/x-pcapng" }), size);
  }

  #offer(file, size) {
    if (this.#kept !== undefined) URL.revokeObjectURL(this.#kept);
    this.#kept = URL.createObjectURL(file);
    const name = `vmrelay-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.pcapng`;
    const link = make("a", { href: this.#kept, download: name }, `Save ${name}`);
    element("recorded").replaceChildren(link, ` (${amount(size, "B")})`);
    link.focus();
  }
}
