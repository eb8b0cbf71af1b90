// Boots a Linux in v86 and makes it a guest of the relay. ?relay=URL names another one than this machine's;
// ?via=v86 lets v86's own network card connect, by WebSocket, instead of vmrelay-client's.
import { V86 } from "./libv86.mjs";
import { attachV86, connect } from "./client/index.js";

const MEGABYTE = 1024 * 1024;
const SCREEN_CHARACTERS = 50_000;

const parameters = new URLSearchParams(location.search);
const relay = parameters.get("relay") ?? `http://${location.hostname}:4433/`;
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
  const nic = await connect(relay, {
    onstate: ({ state, reason }) => {
      status.textContent = `${state} ${reason}`;
    },
  });
  const address = nic.assigned.ip.join(".");
  status.textContent = `connected by ${nic.carrier}, address ${address}`;
  attachV86(boot(nic.mac, address, {}), nic);
}

/** What v86 can do alone: a WebSocket with a frame per message. The address comes by DHCP. */
function bootWithUrl() {
  const url = new URL("/raw", relay);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  status.textContent = `connected by v86 to ${url}`;
  const mac = Uint8Array.of(0x52, 0x54, 0x00, ...crypto.getRandomValues(new Uint8Array(3)));
  boot(mac, "", { relay_url: url.href });
}

/** Starts the machine, with `address` for relays without DHCP. */
function boot(macBytes, address, network) {
  const mac = [...macBytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
  const emulator = new V86({
    wasm_path: "v86.wasm",
    bios: { url: "bios.bin" },
    vga_bios: { url: "vgabios-stdvga.bin" },
    bzimage: { url: "vmlinuz" },
    initrd: { url: "initrd.img" },
    cmdline:
      "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on cryptomgr.notests noisapnp loglevel=2 " +
      `mac=${mac} address=${address}`,
    memory_size: 128 * MEGABYTE,
    net_device: { type: "virtio", ...network },
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
  return emulator;
}
