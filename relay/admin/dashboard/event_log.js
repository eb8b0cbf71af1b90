// What has happened, the latest first.

import { make } from "./dom.js";

const MOST = 200;

export class EventLog {
  #list;
  #lines = new Map();

  constructor(list) {
    this.#list = list;
  }

  clear() {
    this.#list.replaceChildren();
    this.#lines.clear();
  }

  /** Shows an event, unless it is shown already: what has happened lately overlaps with what happens. */
  add({ time, event, message, room, missed }) {
    const key = `${time} ${message}`;
    if (this.#lines.has(key)) return;
    const at = new Date(1000 * time);
    const line = make(
      "li",
      {},
      make("time", { dateTime: at.toISOString() }, at.toLocaleTimeString()),
      make("span", { className: event === "refused" ? "event bad" : "event" }, event),
      make("span", { className: "faint" }, room ?? ""),
      make("span", {}, missed ? `${message} (${missed} events before it were missed)` : message),
    );
    this.#list.prepend(line);
    this.#lines.set(key, line);
    for (const [oldest, shown] of this.#lines) {
      if (this.#lines.size <= MOST) break;
      shown.remove();
      this.#lines.delete(oldest);
    }
  }
}
