// What has happened, the latest first.

import { make } from "./dom.js";

const MOST = 200;

export class EventLog {
  #list;
  #latest = 0;

  constructor(list) {
    this.#list = list;
  }

  clear() {
    this.#list.replaceChildren();
    this.#latest = 0;
  }

  /** Shows an event, unless it is shown already: what has happened lately overlaps with what happens. */
  add({ time, event, message, room, missed }) {
    if (time <= this.#latest) return;
    this.#latest = time;
    const at = new Date(1000 * time);
    const text = missed ? `${message} (${missed} events before it were missed)` : message;
    this.#list.prepend(
      make(
        "li",
        {},
        make("time", { dateTime: at.toISOString() }, at.toLocaleTimeString()),
        make("span", { className: event === "refused" ? "event bad" : "event" }, event),
        make("span", { className: "faint" }, room ?? ""),
        make("span", {}, text),
      ),
    );
    while (this.#list.childElementCount > MOST) this.#list.lastChild.remove();
  }
}
