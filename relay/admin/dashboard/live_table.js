// A table whose rows stay the same elements while their figures change: focus and selection survive.

import { make, say } from "./dom.js";

export class LiveTable {
  #rows = new Map();
  #body = make("tbody", { role: "rowgroup" });
  #head;
  #none;

  /**
   * `columns`: { title, text(item), number, tone(item) }; `actions`: { title, of(item), act(item), danger, whole },
   * where `whole` is for who may change the whole relay;
   * `key(item)` tells rows apart; `none` is said where there is no row.
   */
  constructor(table, { columns, actions = [], key, none }) {
    Object.assign(this, { columns, actions, key });
    this.#none = make("p", { className: "faint" }, none);
    const titles = actions.length === 0 ? columns : [...columns, { title: "" }];
    const heads = titles.map(({ title, number }) =>
      make(title === "" ? "td" : "th", { role: "columnheader", className: number ? "number" : "" }, title),
    );
    this.#head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads));
    table.setAttribute("role", "table");
    table.setAttribute("aria-labelledby", table.closest("section").getAttribute("aria-labelledby"));
    table.append(this.#head, this.#body);
    table.after(this.#none);
  }

  show(items) {
    const before = this.#rows;
    this.#rows = new Map(items.map((item) => [this.key(item), before.get(this.key(item)) ?? this.#make()]));
    for (const [key, { row }] of before) if (!this.#rows.has(key)) drop(row);
    let place = this.#body.firstElementChild;
    for (const item of items) {
      const shown = this.#rows.get(this.key(item));
      shown.item = item;
      this.#update(shown);
      if (shown.row === place) place = place.nextElementSibling;
      else this.#body.insertBefore(shown.row, place);
    }
    this.#none.hidden = items.length > 0;
    this.#head.hidden = items.length === 0;
  }

  #make() {
    const cells = this.columns.map(({ title }) => make("td", { role: "cell", "data-title": title }));
    const shown = { row: undefined, item: undefined, cells, buttons: [] };
    shown.buttons = this.actions.map(({ title, act, danger, whole }) => {
      const onclick = () => act(shown.item);
      const className = [danger ? "danger" : "", whole ? "whole" : ""].join(" ").trim();
      return make("button", { type: "button", className, onclick }, title);
    });
    const last = shown.buttons.length === 0 ? [] : [make("td", { role: "cell", className: "actions" }, ...shown.buttons)];
    shown.row = make("tr", { role: "row" }, ...cells, ...last);
    return shown;
  }

  #update({ item, cells, buttons }) {
    this.columns.forEach(({ text, number, tone }, at) => {
      say(cells[at], text(item));
      const className = [number ? "number" : "", tone?.(item) ?? ""].filter(Boolean).join(" ");
      if (cells[at].className !== className) cells[at].className = className;
    });
    this.actions.forEach(({ title, of }, at) => buttons[at].setAttribute("aria-label", `${title} ${of(item)}`));
  }
}

/** Takes a row away; who was in it with the keyboard goes on in its section. */
function drop(row) {
  const section = row.closest("section");
  const focused = row.contains(document.activeElement);
  row.remove();
  if (focused) section.focus();
}
