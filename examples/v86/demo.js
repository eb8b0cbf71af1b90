// Boots a Linux in v86 and makes it a guest of the relay. ?relay=URL names it (serve.py names its own), and
// &hash=HASH its certificate where that is not fetched from the relay's TCP port by http;
// ?via=v86 lets v86's own network card connect, by WebSocket, instead of vmrelay-client's; ?card=ne2k is a card of 1990.
import { V86 } from "./libv86.mjs";
import { connectV86 } from "./client/v86.js";

const MEGABYTE = 1024 * 1024;
const SCREEN_CHARACTERS = 50_000;

const parameters = new URLSearchParams(location.search);
const relay = parameters.get("relay") ?? `http://${location.hostname}:4433/`;
const card = parameters.get("card") ?? "virtio";
const screen = document.getElementById("screen");
const status = document.getElementById("status");

try {
  if (parameters.get("via") === "v86") bootWithUrl();
  else await bootWithClient();
} catch (error) {
  status.textContent = `no connection to ${relay}: ${error.message}`;
}

/** The card of vmrelay-client: WebTransport, and WebSocket where that fails. */
async function bootWithClient() {
  let carrier = "";
  await connectV86(boot({ type: card }), relay, {
    certificateHash: parameters.get("hash") ?? undefined,
    onstate: ({ state, reason }) => {
      if (state === "open") carrier = reason;
      status.textContent = `${state} ${reason}`;
    },
    onassigned: ({ ip }) => {
      status.textContent = `connected by ${carrier}, address ${ip.join(".")}`;
    },
  });
}

/** What v86 can do alone: a WebSocket with a frame per message. */
function bootWithUrl() {
  const url = new URL("/raw", relay);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  status.textContent = `connected by v86 to ${url}`;
  boot({ type: card, relay_url: url.href });
}

/** Starts the machine; it is `emulator` in the browser's console. */
function boot(network) {
  const emulator = new V86({
    wasm_path: "v86.wasm",
    bios: { url: "bios.bin" },
    vga_bios: { url: "vgabios-stdvga.bin" },
    bzimage: { url: "vmlinuz" },
    initrd: { url: "initrd.img" },
    cmdline:
      "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on cryptomgr.notests noisapnp loglevel=2",
    memory_size: 128 * MEGABYTE,
    net_device: network,
    disable_speaker: true,
    autostart: true,
  });
  // Escape sequences (colours, "where is the cursor") mean nothing to a <pre>.
  let console = "";
  emulator.add_listener("serial0-output-byte", (byte) => {
    if (byte === 0x0d) return;
    console = (console + String.fromCharCode(byte)).slice(-SCREEN_CHARACTERS);
    if (byte === 0x08) console = console.slice(0, -2);
  });
  const paint = () => {
    const text = console.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
    if (screen.textContent !== text) {
      screen.textContent = text;
      screen.scrollTop = screen.scrollHeight;
    }
    requestAnimationFrame(paint);
  };
  paint();

  const type = (command) => emulator.serial0_send(`${command}\n`);
  document.getElementById("line").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = document.getElementById("command");
    type(input.value);
    input.value = "";
  });
  for (const button of document.querySelectorAll(".try")) {
    button.addEventListener("click", () => type(button.textContent));
  }
  globalThis.emulator = emulator;
  return emulator;
}
