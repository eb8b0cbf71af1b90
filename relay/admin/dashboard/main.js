// The dashboard: asks the relay how it is, shows it, and does what its operator clicks.

import { ask } from "./ask.js";
import { element, make, offer, say } from "./dom.js";
import { EventLog } from "./event_log.js";
import { amount, duration, host, rate } from "./format.js";
import { drawTopology, drawTraffic } from "./pictures.js";
import { History, Rates } from "./rates.js";
import { Recorder } from "./recorder.js";
import { Relay } from "./relay.js";
import { banTable, dropTable, flowTable, forwardTable, nameOf, sessionTable } from "./tables.js";

const [LEAST_PAUSE, MOST_PAUSE] = [1000, 10_000];
const PAUSE_PER_ANSWER = 2;
const RETRY = 2000;

const relay = new Relay();
const rates = new Rates();
const traffic = new History();
const eventLog = new EventLog(element("events").querySelector("ol"));
const recorder = new Recorder(relay, () => room.value);
const [room, find] = [element("room"), element("find")];
const main = document.querySelector("main");

// A link of "vmrelay dashboard" has the token behind "#", which browsers send to nobody; it goes where the token is
// kept, and out of the address bar and the history.
if (location.hash.startsWith("#token=")) {
  relay.token = decodeURIComponent(location.hash.slice("#token=".length));
  history.replaceState(null, "", location.pathname);
}

// -- what is shown ----------------------------------------------------------------------------------

const tables = {
  sessions: sessionTable({ disconnect, ban, capture: (peer) => recorder.choose(peer) }),
  flows: flowTable(),
  forwards: forwardTable({ remove: removeForward }),
  drops: dropTable(),
  bans: banTable({ lift }),
};

function show({ relay: facts, seen }, bans) {
  const peers = rates.of(seen.peers);
  traffic.add(seen.traffic, room.value);
  const withRoom = ([where, told]) => ({ room: where, ...told });
  tables.sessions.show(peers);
  tables.flows.show(seen.flows.map(withRoom));
  tables.forwards.show(seen.forwards.map(withRoom));
  tables.drops.show(Object.entries(seen.drops));
  tables.bans.show(bans ?? []);
  document.body.classList.toggle("confined", bans === null);
  title("sessions", "Sessions", peers.length, seen.peers_found);
  title("flows", "Flows", seen.flows.length, seen.flows_found);
  showFacts(facts);
  showFigures(seen);
  drawTopology(seen, peers, room.value);
  drawTraffic(traffic);
  const rooms = seen.rooms.map(({ name }) => [name, name]);
  offer(room, [["", "all rooms"], ...rooms]);
  offer(element("forward").elements.room, rooms);
  offer(element("guests"), [...new Set(peers.map(({ name, address }) => name ?? address).filter(Boolean))].map((name) => [name, ""]));
  recorder.offerSessions(peers);
}

function title(section, text, shown, found) {
  say(element(`${section}-title`), shown < found ? `${text}: ${shown} of ${found}` : `${text}: ${found}`);
}

function showFacts({ version, address, path, uptime, draining, certificate }) {
  const ends = duration(certificate.expires_in);
  say(element("relay"), `${version} at ${address}, up ${duration(uptime)}, ${path}; certificate for another ${ends}`);
  say(element("drain"), draining ? "End drain" : "Drain…");
  element("drain").dataset.draining = draining;
  document.body.classList.toggle("draining", draining);
}

function showFigures({ rooms, peers_found, flows_found, drops }) {
  const { from, to } = traffic.latest;
  const figures = {
    Rooms: String(rooms.length),
    Sessions: String(peers_found),
    "From guests": rate(from),
    "To guests": rate(to),
    Flows: String(flows_found),
    Drops: amount(Object.values(drops).reduce((sum, count) => sum + count, 0)),
  };
  const list = element("figures");
  if (list.childElementCount === 0) {
    list.append(...Object.keys(figures).map((name) => make("div", {}, make("dt", {}, name), make("dd", {}))));
  }
  Object.values(figures).forEach((text, at) => say(list.children[at].lastChild, text));
}

function showState(text, kind) {
  const state = element("state");
  say(state, text);
  state.className = kind;
}

// -- what is done -----------------------------------------------------------------------------------

/** Does something, tells what went wrong, and looks again. */
async function act(work) {
  const error = element("error");
  error.hidden = true;
  try {
    await work();
  } catch ({ message }) {
    error.textContent = message;
    error.hidden = false;
  }
  lookAgain();
}

async function disconnect(peer) {
  const answer = await ask({
    title: `Disconnect ${nameOf(peer)}?`,
    text: `Session ${peer.port} of room ${peer.room}, from ${peer.remote}. Its client may come back at once.`,
    fields: [{ name: "reason", label: "Reason, told to its client" }],
    confirm: "Disconnect",
  });
  if (answer) await act(() => relay.delete(`/v1/peers/${peer.port}`, answer));
}

async function ban(peer) {
  const whom = [["address", host(peer.remote)], ...(peer.mac === null ? [] : [["mac", peer.mac]])].reverse();
  const answer = await ask({
    title: `Ban ${nameOf(peer)}?`,
    text: "Its sessions are ended, and it is kept out of all rooms.",
    fields: [
      { name: "whom", label: "Whom", options: whom.map(([kind, what]) => [`${kind} ${what}`, `${kind} ${what}`]) },
      { name: "seconds", label: "For", options: [["600", "10 minutes"], ["3600", "an hour"], ["86400", "a day"], ["", "ever"]] },
      { name: "reason", label: "Reason, told to its client" },
    ],
    confirm: "Ban",
  });
  if (!answer) return;
  const [kind, what] = answer.whom.split(" ");
  const limit = answer.seconds === "" ? {} : { seconds: Number(answer.seconds) };
  await act(() => relay.post("/v1/bans", { kind, what, reason: answer.reason, ...limit }));
}

async function lift({ id }) {
  await act(() => relay.delete(`/v1/bans/${encodeURIComponent(id)}`));
}

async function removeForward({ room: where, forward }) {
  const text = "It stays closed until it is added again. TCP connections by it that are there go on.";
  const answer = await ask({ title: `Remove ${forward}?`, text, confirm: "Remove" });
  if (answer) await act(() => relay.delete("/v1/forwards", { room: where, forward }));
}

element("forward").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const { room: where, protocol, host: at, port, vm, vm_port } = Object.fromEntries(new FormData(form));
  const address = at.includes(":") && !at.startsWith("[") ? `[${at}]` : at;
  void act(async () => {
    await relay.post("/v1/forwards", { room: where, forward: `${protocol}:${address}:${port}:${vm.trim()}:${vm_port}` });
    form.reset();
  });
});

element("drain").addEventListener("click", async () => {
  if (element("drain").dataset.draining === "true") {
    await act(() => relay.delete("/v1/drain"));
    return;
  }
  const text = "New sessions are refused; those that are there stay.";
  if (await ask({ title: "Drain the relay?", text, confirm: "Drain" })) await act(() => relay.post("/v1/drain"));
});

// -- signing in -------------------------------------------------------------------------------------

function showSignIn(wanted) {
  element("sign-in").hidden = !wanted;
  main.hidden = wanted;
  document.querySelector('[data-for="relay"]').hidden = wanted;
  element("sign-out").hidden = relay.token === "";
}

/** Waits until a token was given. */
function signIn(reason) {
  showSignIn(true);
  showState(relay.token === "" ? "signed out" : reason, relay.token === "" ? "" : "bad");
  relay.token = "";
  const token = element("token");
  token.focus();
  return new Promise((resolve) => {
    element("sign-in").onsubmit = (event) => {
      event.preventDefault();
      relay.token = token.value.trim();
      isConfined = false;
      token.value = "";
      resolve();
    };
  });
}

element("sign-out").addEventListener("click", () => {
  relay.token = "";
  location.reload();
});

// -- going on ---------------------------------------------------------------------------------------

let lookAgain = () => undefined;
let isConfined = false;

/** Waits; `lookAgain` ends it. */
const pause = (milliseconds) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    lookAgain = () => {
      clearTimeout(timer);
      resolve();
    };
  });

/** Waits until somebody sees the page. */
const visible = () =>
  new Promise((resolve) => {
    const look = () => {
      if (document.visibilityState === "hidden") return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });

/** Gives who is kept out, or null where the token is for one room: that, and more, is about the whole relay. */
async function askForBans() {
  if (isConfined) return null;
  try {
    return await relay.get("/v1/bans");
  } catch (error) {
    if (error.status !== 403) throw error;
    isConfined = true;
    return null;
  }
}

/** Looks at the relay again and again; the longer its answers take the more seldom. */
async function watch() {
  for (;;) {
    await visible();
    const began = performance.now();
    try {
      const query = { room: room.value, find: find.value.trim() };
      const answers = await Promise.all([relay.get("/v1/overview", query), askForBans()]);
      showSignIn(false);
      show(...answers);
      following ??= follow();
      showState("live", "good");
    } catch (error) {
      if (error.status === 401) {
        await signIn(error.message);
        continue;
      }
      if (error.status === 404) room.value = ""; // the room has ended
      showState(`${error.message}; trying again`, "bad");
    }
    const wish = PAUSE_PER_ANSWER * (performance.now() - began);
    await pause(Math.min(Math.max(LEAST_PAUSE, wish), MOST_PAUSE));
  }
}

let following; // from the first answer on: before it, the relay may want a token
let ending = new AbortController();

/** Shows what has happened lately in the room that is chosen and follows it; comes back when the stream ends. */
async function follow() {
  for (;;) {
    ending = new AbortController();
    const query = { room: room.value };
    try {
      const stream = relay.events(query, ending.signal);
      const first = stream.next(); // asks for the stream, so that nothing falls between it and what was before
      first.catch(() => undefined); // it is waited for below, if one gets there
      const before = await relay.get("/v1/events/recent", query);
      eventLog.clear();
      before.forEach((event) => eventLog.add(event));
      for (let next = await first; !next.done; next = await stream.next()) {
        eventLog.add(next.value);
      }
    } catch {
      // The state says already that the relay does not answer, or wants a token.
    }
    const isChosenAnew = ending.signal.aborted;
    ending.abort(); // also a stream that goes on where the question behind it failed
    if (!isChosenAnew) await new Promise((resolve) => setTimeout(resolve, RETRY));
  }
}

room.addEventListener("change", () => {
  ending.abort();
  lookAgain();
});
find.addEventListener("input", () => lookAgain());
element("choice").addEventListener("submit", (event) => event.preventDefault());

void watch();
