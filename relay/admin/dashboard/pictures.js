// The two drawings: what hangs where, and the traffic of the last minutes. A unit is a pixel at any width.

import { draw, element, say } from "./dom.js";
import { amount, rate } from "./format.js";

const MOST_LEAVES = 24;
const ROW = 34;
const NARROW = 560;
const SPAN = 120;

/** Draws one room with its guests, or, of several rooms, all of them. */
export function drawTopology(seen, peers, room) {
  const rooms = seen.rooms.filter(({ name }) => room === "" || name === room);
  const [only] = rooms;
  const flows = `${amount(seen.flows_found)} flows`;
  if (rooms.length === 1) {
    const leaves = peers.map((peer) => ({
      title: peer.name ?? peer.mac ?? `session ${peer.port}`,
      detail: peer.address ?? peer.carrier,
      traffic: peer.from + peer.to,
      absent: peer.carrier === "none",
    }));
    drawTree([["internet", flows], ["gateway", only.gateway], [only.name, only.network]], leaves, only.sessions);
    say(
      element("topology-text"),
      `Room ${only.name}: ${only.sessions} sessions at one switch, ${flows} out by the gateway ${only.gateway}.`,
    );
    return;
  }
  const leaves = rooms.map(({ name, network, sessions }) => ({ title: name, detail: `${network}, ${sessions}`, traffic: 0 }));
  drawTree([["internet", flows], ["relay", `${rooms.length} rooms`]], leaves, leaves.length);
  say(element("topology-text"), `${rooms.length} rooms, each a switch and a gateway of its own; choose one to see its guests.`);
}

function drawTree(chain, leaves, leavesFound) {
  const drawing = element("topology");
  const width = drawing.clientWidth || NARROW;
  const shown = leaves.slice(0, MOST_LEAVES);
  const further = leavesFound - shown.length;
  if (further > 0) shown.push({ title: `${further} more`, detail: "", traffic: 0 });
  const wide = width >= NARROW;
  const rows = shown.length * ROW;
  const height = wide ? Math.max(rows, 2 * ROW) + 10 : rows + 70;
  const box = Math.min(130, width / chain.length - 14);
  const columns = wide ? chain.length + 1.4 : chain.length;
  const places = chain.map((_, at) => ({ x: (width / columns) * at + 2, y: wide ? height / 2 - 20 : 2 }));
  const end = places.at(-1);
  const leafX = wide ? (width / columns) * chain.length : 40;
  const lines = places.slice(1).map(({ x, y }, at) => link(`M${places[at].x + box} ${y + 20}H${x}`, 0));
  const nodes = chain.map(([title, detail], at) => node(places[at], box, 40, title, detail, `node ${at === 0 ? "outside" : ""}`));
  shown.forEach((leaf, at) => {
    const y = (wide ? (height - rows) / 2 : 60) + at * ROW;
    const middle = y + ROW / 2 - 3;
    const start = wide ? `M${end.x + box} ${height / 2}` : `M${end.x + box / 2} 42V50H20`;
    const path = wide ? `${start}C${leafX - 20} ${height / 2} ${end.x + box + 20} ${middle} ${leafX} ${middle}` : `${start}V${middle}H${leafX}`;
    lines.push(link(path, leaf.traffic));
    nodes.push(node({ x: leafX, y }, width - leafX - 2, ROW - 6, leaf.title, leaf.detail, leaf.absent ? "leaf absent" : "leaf"));
  });
  drawing.setAttribute("height", height);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(...lines, ...nodes);
}

/** A line; the more goes over it the wider, a pixel for each power of ten above 1 kbit/s. */
function link(path, traffic) {
  const width = 1.5 + Math.max(0, Math.log10(traffic + 1) - 3);
  return draw("path", { d: path, class: traffic > 0 ? "link busy" : "link", "stroke-width": width.toFixed(1) });
}

function node({ x, y }, width, height, title, detail, kind) {
  const one = height < 40;
  const most = Math.floor((one ? width * 0.55 : width - 8) / 7.5);
  const texts = one
    ? [draw("text", { x: 10, y: height / 2 + 4 }, shortened(title, most)),
       draw("text", { x: width - 10, y: height / 2 + 4, class: "detail", "text-anchor": "end" }, shortened(detail, Math.floor((width * 0.45) / 7)))]
    : [draw("text", { x: width / 2, y: 17, "text-anchor": "middle" }, shortened(title, most)),
       draw("text", { x: width / 2, y: 33, class: "detail", "text-anchor": "middle" }, shortened(detail, most))];
  return draw("g", { class: kind, transform: `translate(${x} ${y})` }, draw("rect", { width, height, rx: 6 }), ...texts);
}

const shortened = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

/** Draws the rates of both directions. */
export function drawTraffic({ samples, latest }) {
  const drawing = element("traffic");
  const [width, height] = [drawing.clientWidth || NARROW, 90];
  const top = Math.max(1000, ...samples.flatMap(({ from, to }) => [from, to]));
  const now = samples.at(-1)?.at ?? 0;
  const points = (way) =>
    samples.map((sample) => {
      const x = width * (1 - (now - sample.at) / SPAN);
      return `${x.toFixed(1)},${(height - 2 - (sample[way] / top) * (height - 20)).toFixed(1)}`;
    });
  drawing.setAttribute("height", height);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(
    draw("line", { x1: 0, x2: width, y1: 18, y2: 18 }),
    draw("line", { x1: 0, x2: width, y1: height - 2, y2: height - 2 }),
    draw("text", { x: 2, y: 13 }, rate(top)),
    draw("polyline", { class: "to", points: points("to").join(" ") }),
    draw("polyline", { class: "from", points: points("from").join(" ") }),
  );
  const [from, to] = element("traffic-text").children;
  say(from, `From guests ${rate(latest.from)}`);
  say(to, `to guests ${rate(latest.to)}`);
}
