// What each table of the page tells, and what may be done in its rows.

import { element } from "./dom.js";
import { amount, duration, known, milliseconds, percent, rate } from "./format.js";
import { LiveTable } from "./live_table.js";

const table = (section, options) => new LiveTable(element(section).querySelector("table"), options);

const column = (title, text, more = {}) => ({ title, text, ...more });
const figure = (title, text) => column(title, text, { number: true });

export const nameOf = (peer) => peer.name ?? peer.mac ?? `session ${peer.port}`;

const lines = (...texts) => texts.join("\n");

/** The reason why most was dropped, with how much in all. */
function dropped({ drops }) {
  const found = Object.entries(drops).sort(([, one], [, other]) => other - one);
  const all = found.reduce((sum, [, count]) => sum + count, 0);
  return all === 0 ? "0" : lines(amount(all), found[0][0]);
}

export function sessionTable({ disconnect, ban, capture }) {
  return table("sessions", {
    key: ({ port }) => port,
    none: "No session.",
    columns: [
      figure("Port", ({ port }) => String(port)),
      column("Room", ({ room }) => room),
      column("Guest", ({ name, address }) => lines(known(name), known(address))),
      column("MAC, client", ({ mac, remote }) => lines(known(mac), remote)),
      column("Carrier", ({ carrier, round_trip: time }) => lines(carrier === "none" ? "away" : carrier, milliseconds(time)), {
        tone: ({ carrier }) => (carrier === "none" ? "bad" : ""),
      }),
      figure("Lost", ({ packets_lost, packets_sent }) => percent(packets_lost, packets_sent)),
      figure("From guest", ({ from, bytes_in }) => lines(rate(from), amount(bytes_in, "B"))),
      figure("To guest", ({ to, bytes_out }) => lines(rate(to), amount(bytes_out, "B"))),
      column("Drops", dropped),
    ],
    actions: [
      { title: "Capture", of: nameOf, act: capture },
      { title: "Disconnect", of: nameOf, act: disconnect, danger: true },
      { title: "Ban", of: nameOf, act: ban, danger: true, whole: true },
    ],
  });
}

export function flowTable() {
  return table("flows", {
    key: ({ room, port, protocol, guest, remote }) => [room, port, protocol, guest, remote].join(" "),
    none: "No flow: no guest speaks with the outside.",
    columns: [
      column("Room", ({ room }) => room),
      figure("Port", ({ port }) => String(port)),
      column("Protocol", ({ protocol }) => protocol),
      column("Guest", ({ guest }) => guest),
      column("Remote", ({ remote }) => remote),
      column("State", ({ state }) => state),
      figure("Age", ({ age }) => duration(age)),
      figure("Ends in", ({ ends_in }) => duration(ends_in)),
      figure("Bytes out", ({ bytes_out }) => amount(bytes_out, "B")),
      figure("Bytes in", ({ bytes_in }) => amount(bytes_in, "B")),
    ],
  });
}

export function forwardTable({ remove }) {
  return table("forwards", {
    key: ({ room, forward }) => `${room} ${forward}`,
    none: "No forward.",
    columns: [
      column("Room", ({ room }) => room),
      column("Forward", ({ forward }) => forward),
      column("Leads to", ({ guest }) => known(guest)),
      figure("UDP clients", ({ clients }) => known(clients)),
    ],
    actions: [{ title: "Remove", of: ({ forward }) => forward, act: remove, danger: true }],
  });
}

export function dropTable() {
  return table("drops", {
    key: ([reason]) => reason,
    none: "Nothing was dropped.",
    columns: [column("Reason", ([reason]) => reason), figure("Count", ([, count]) => amount(count))],
  });
}

export function banTable({ lift }) {
  return table("bans", {
    key: ({ id }) => id,
    none: "Nobody is kept out.",
    columns: [
      column("Who", ({ id }) => id),
      figure("Ends in", ({ ends_in }) => (ends_in === null ? "never" : duration(ends_in))),
      column("Reason", ({ reason }) => known(reason)),
    ],
    actions: [{ title: "Lift", of: ({ id }) => id, act: lift }],
  });
}
