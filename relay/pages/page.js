// The connection page: shows how to connect, and tries it.
import { connect } from "/client/index.js";
import { Guest } from "/network.js";

const element = (id) => document.getElementById(id);
const socketUrl = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}`;
const named = /^\/room\/([a-z0-9-]{1,63})$/.exec(location.pathname)?.[1] ?? new URLSearchParams(location.search).get("room");
const room = named === null || named === "default" ? "" : encodeURIComponent(named);
const path = room === "" ? "/" : `/room/${room}`;
const relayUrl = `https://${location.host}${path}`;

// A token that came with the page's address goes where tokens stand, and out of the address bar and the history.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  element("token").value = address.searchParams.get("token");
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

element("room").textContent = named ?? "default";
element("webtransport").textContent = relayUrl;
element("websocket").textContent = `${socketUrl}${path}`;
element("raw").textContent = `${socketUrl}${room === "" ? "" : path}/raw`;

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
  const options = current.pinned ? `, { certificateHash: "${current.hash}" }` : "";
  element("example").textContent =
    `import { connect } from "${location.origin}/client/index.js";\n\n` +
    `const nic = await connect("${relayUrl}"${options});\n` +
    'console.log("address", nic.assigned.ip.join("."), "by", nic.carrier);';
}

element("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(element("hash").textContent);
    element("copied").textContent = "copied";
  } catch {
    // Without permission, or over plain HTTP from elsewhere: leave it selected.
    getSelection().selectAllChildren(element("hash"));
    element("copied").textContent = "selected: press Ctrl+C";
  }
});

element("test").addEventListener("submit", (event) => {
  event.preventDefault();
  void test(element("name").value.trim());
});

async function test(name) {
  const button = document.querySelector("#test button");
  button.disabled = true;
  element("steps").replaceChildren();
  let nic;
  try {
    nic = await step("connect", async () => {
      const { current, next } = await certificates;
      const certificateHash = [current, next].flatMap((each) => (each?.pinned ? [each.hash] : []));
      const token = element("token").value.trim();
      const found = await connect(`${location.origin}${path}`, { certificateHash, token, reconnect: false });
      return [found, `by ${found.carrier}`];
    });
    const { ip, gateway, mtu, room: assignedRoom } = nic.assigned;
    const where = assignedRoom === "default" ? "" : `, room ${assignedRoom}`;
    await step("get an address", async () => [undefined, `${ip.join(".")}, MTU ${mtu}${where}`]);
    const guest = new Guest(nic);
    const mac = await step("find the gateway", async () => {
      const found = await guest.resolve(gateway);
      return [found, `${gateway.join(".")} at ${[...found].map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`];
    });
    await step("ping the gateway", async () => {
      const times = [];
      for (let count = 0; count < 3; count++) times.push((await guest.ping(gateway, mac)).toFixed(1));
      return [undefined, `${times.join(", ")} ms`];
    });
    await step(`resolve ${name}`, async () => {
      const { code, addresses, milliseconds } = await guest.lookUp(name, gateway, mac);
      if (addresses.length === 0) throw new Error(code);
      return [undefined, `${addresses.join(", ")} in ${milliseconds.toFixed(1)} ms`];
    });
  } catch {
    // Shown where it happened.
  } finally {
    nic?.close();
    button.disabled = false;
  }
}

/** Shows a step while it runs and how it went; gives the first of what `work` returns. */
async function step(title, work) {
  const item = document.createElement("li");
  item.className = "running";
  item.textContent = title;
  element("steps").append(item);
  try {
    const [result, details] = await work();
    item.className = "well";
    item.textContent = `${title}: ${details}`;
    return result;
  } catch (error) {
    item.className = "bad";
    item.textContent = `${title}: ${error.message}`;
    throw error;
  }
}
