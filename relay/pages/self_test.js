// Tries what a guest needs, step by step, and shows how each went.

import { element, make } from "/dom.js";
import { Guest } from "/network.js";
import { addressOf, addressText, macText } from "/packets.js";
import { verdict } from "/verdict.js";

const AAAA = 28;
const NAMES = { webtransport: "WebTransport, UDP", websocket: "WebSocket, TCP" };
const LISTS = ["carriers", "steps", "out"];

/** What a relay need not have: no fault of the connection. */
class NotThere extends Error {}

/** `dial(kind)` connects by one carrier; `target` is { name, port } of a host outside. */
export async function selfTest(dial, target, relayPort) {
  const results = {};
  for (const list of LISTS) element(list).replaceChildren();
  element("verdict").replaceChildren();
  element("results").hidden = false;
  const nics = await openCarriers(dial, results, relayPort);
  try {
    await lookAround(nics, target, results);
  } catch {
    // Shown where it happened.
  } finally {
    nics.forEach((nic) => nic.close());
  }
  const hasWebTransport = typeof WebTransport !== "undefined";
  const said = verdict(results, { port: relayPort, target, hasWebTransport });
  element("verdict").replaceChildren(...said.map(({ text, kind }) => make("li", { className: kind }, text)));
}

/** Gives a network interface for each carrier that works, the better one first. */
async function openCarriers(dial, results, port) {
  const nics = [];
  for (const kind of ["webtransport", "websocket"]) {
    await step("carriers", `${NAMES[kind]} port ${port}`, results, kind, async () => {
      const began = performance.now();
      nics.push(await dial(kind));
      return [undefined, `a session after ${(performance.now() - began).toFixed(0)} ms`];
    }).catch(() => undefined);
  }
  return nics;
}

async function lookAround(nics, { name, port }, results) {
  const nic = await step("steps", "connect", results, "connect", async () => {
    if (nics.length === 0) throw new Error(results.websocket);
    return [nics[0], `by ${nics[0].carrier}`];
  });
  const { ip, gateway, mtu, room } = nic.assigned;
  await step("steps", "get an address", results, "address", async () => {
    return [undefined, `${ip.join(".")}, MTU ${mtu}${room === "default" ? "" : `, room ${room}`}`];
  });
  const guest = new Guest(nic);
  const mac = await step("steps", "find the gateway", results, "gateway", async () => {
    const found = await guest.resolve(gateway);
    return [found, `${gateway.join(".")} at ${macText(found)}`];
  });
  await step("steps", "ping the gateway", results, "ping", async () => {
    const times = [];
    for (let count = 0; count < 3; count++) times.push((await guest.ping(gateway, mac)).toFixed(1));
    return [undefined, `${times.join(", ")} ms`];
  });
  const address = await step("steps", `resolve ${name}`, results, "resolve", async () => {
    const written = addressOf(name);
    if (written !== undefined) return [written, "it is an address"];
    const { code, addresses, milliseconds } = await guest.lookUp(name, gateway, mac);
    if (addresses.length === 0) throw new Error(code);
    return [addresses[0], `${addresses.map(addressText).join(", ")} in ${milliseconds.toFixed(1)} ms`];
  }).catch(() => undefined);
  if (address !== undefined) {
    const text = addressText(address);
    await timed(`TCP to ${text} port ${port}`, results, "tcp", () => guest.connect(address, port, mac));
    await timed(`ping ${text}`, results, "echo", () => guest.ping(address, mac));
  }
  await tryIpv6(guest, { name, port, gateway, mac }, results);
}

async function tryIpv6(guest, { name, port, gateway, mac }, results) {
  const router = await step("out", "IPv6 on the LAN", results, "ipv6", async () => {
    const found = await guest.findRouter();
    const milliseconds = await guest.ping(found.router, found.mac);
    return [found, `${addressText(found.address)}, the router answers after ${milliseconds.toFixed(1)} ms`];
  });
  await step("out", "a way out by IPv6", results, "route", async () => {
    if (!router.isDefault) throw new NotThere("none, for the relay's machine has none");
    return [undefined, `by ${addressText(router.router)}`];
  });
  const { addresses } = addressOf(name) ? { addresses: [] } : await guest.lookUp(name, gateway, mac, AAAA);
  if (addresses.length === 0) return;
  const text = addressText(addresses[0]);
  await timed(`TCP to ${text} port ${port}`, results, "ipv6Out", () => guest.connect(addresses[0], port, router.mac));
}

/** A step of which only the time tells; the ones behind it are tried in any case. */
async function timed(title, results, name, work) {
  await step("out", title, results, name, async () => [undefined, `${(await work()).toFixed(1)} ms`]).catch(() => undefined);
}

/** Shows a step while it runs and how it went, and notes that; gives the first of what `work` returns. */
async function step(list, title, results, name, work) {
  const item = make("li", { className: "running" }, title);
  element(list).append(item);
  try {
    const [result, details] = await work();
    item.className = "well";
    item.textContent = `${title}: ${details}`;
    results[name] = null;
    return result;
  } catch (error) {
    item.className = error instanceof NotThere ? "none" : "bad";
    item.textContent = `${title}: ${error.message}`;
    results[name] = error.message;
    throw error;
  }
}
