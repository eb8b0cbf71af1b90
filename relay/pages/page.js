// The connection page: shows how to connect, and tries it.

import { connect } from "/client/index.js";
import { element } from "/dom.js";
import { selfTest } from "/self_test.js";
import { snippets } from "/snippets.js";
import { tabs } from "/tabs.js";

const socketUrl = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}`;
const named = /^\/room\/([a-z0-9-]{1,63})$/.exec(location.pathname)?.[1] ?? new URLSearchParams(location.search).get("room");
const room = named === null || named === "default" ? "" : encodeURIComponent(named);
const path = room === "" ? "/" : `/room/${room}`;
const relayUrl = `https://${location.host}${path}`;
const rawUrl = `${socketUrl}${room === "" ? "" : path}/raw`;
const port = location.port || (location.protocol === "https:" ? "443" : "80");

// A token that came with the page's address goes where tokens stand, and out of the address bar and the history.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  element("token").value = address.searchParams.get("token");
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

tabs(document.querySelector('[role="tablist"]'));
element("room").textContent = named ?? "default";
element("webtransport").textContent = relayUrl;
element("websocket").textContent = `${socketUrl}${path}`;
element("raw").textContent = rawUrl;

const certificates = fetch("/cert-hash", { cache: "no-store" }).then((response) => response.json());
certificates.then(showCertificate, (error) => {
  element("hash").textContent = `could not be asked for: ${error.message}`;
});

function showCertificate({ current, next }) {
  element("hash").textContent = current.hash;
  element("copy").disabled = false;
  const until = new Date(current.notAfter).toLocaleString();
  const following = next === null ? "" : `; then ${next.hash}`;
  element("validity").textContent = `valid until ${until}${following}`;
  const hash = current.pinned ? current.hash : null;
  const found = snippets({ page: location.origin, relay: relayUrl, socket: rawUrl, hash });
  for (const [id, text] of Object.entries(found)) element(id).textContent = text;
}

// Each button copies what it names.
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", () => copy(element(button.dataset.copies), element(button.dataset.says)));
}

async function copy(source, told) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    told.textContent = "copied";
  } catch {
    // Without permission, or over plain HTTP from elsewhere: leave it selected.
    getSelection().selectAllChildren(source);
    told.textContent = "selected: press Ctrl+C";
  }
}

element("test").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.currentTarget.querySelector("button");
  button.disabled = true;
  const target = { name: element("name").value.trim(), port: element("port").valueAsNumber };
  await selfTest(dial, target, port).finally(() => (button.disabled = false));
});

/** Connects by one carrier. */
async function dial(transport) {
  const { current, next } = await certificates;
  const certificateHash = [current, next].flatMap((each) => (each?.pinned ? [each.hash] : []));
  const token = element("token").value.trim();
  return connect(`${location.origin}${path}`, { certificateHash, token, transport, reconnect: false });
}
