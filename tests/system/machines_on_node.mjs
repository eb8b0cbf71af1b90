// Many v86 machines, each a bus that asks for an address by DHCP under a MAC of its own, and what they get.
//   node machines_on_node.mjs URL COUNT
import { connectV86 } from "vmrelay-client";

const [url, count] = [process.argv[2], Number(process.argv[3])];

/** As much of v86 as its network card needs. The guest discovers a DHCP server every second until it is offered an address. */
class Machine {
  #listeners = [];
  offered = new Promise((resolve) => (this.bus = { send: (_, frame) => this.#receive(frame, resolve) }));

  constructor(number) {
    this.mac = [0x00, 0x22, 0x15, 0, number >> 8, number & 255];
    this.timer = setInterval(() => this.discover(), 1000);
  }

  add_listener(event, listener) {
    if (event === "net0-send") this.#listeners.push(listener);
    this.discover();
  }

  remove_listener(event, listener) {
    if (event === "net0-send") this.#listeners = this.#listeners.filter((each) => each !== listener);
  }

  discover() {
    const message = [1, 1, 6, 0, 0, 0, ...this.mac.slice(4), ...Array(20).fill(0), ...this.mac, ...Array(10 + 192).fill(0), 99, 130, 83, 99, 53, 1, 1, 255];
    const length = 8 + message.length;
    const udp = [0, 68, 0, 67, length >> 8, length & 255, 0, 0, ...message];
    const header = [0x45, 0, (20 + length) >> 8, (20 + length) & 255, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    let sum = 0;
    for (let at = 0; at < 20; at += 2) sum += (header[at] << 8) | header[at + 1];
    sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
    [header[10], header[11]] = [sum >> 8, sum & 255];
    const frame = Uint8Array.of(...Array(6).fill(255), ...this.mac, 8, 0, ...header, ...udp);
    for (const listener of this.#listeners) listener(frame);
  }

  /** An offer for this machine ends the asking. */
  #receive(frame, resolve) {
    const mine = this.mac.every((byte, at) => frame[42 + 28 + at] === byte);
    if (frame[12] !== 8 || frame[13] !== 0 || frame[23] !== 17 || frame[35] !== 67 || !mine) return;
    clearInterval(this.timer);
    resolve([...frame.subarray(42 + 16, 42 + 20)].join("."));
  }
}

const outcomes = await Promise.all(
  Array.from({ length: count }, async (_, number) => {
    const machine = new Machine(number);
    try {
      const nic = await connectV86(machine, url, { transport: "websocket", timeout: 60_000 });
      const offered = await machine.offered;
      return { offered, assigned: nic.assigned.ip.join("."), own: machine.mac.join() === nic.mac.join() };
    } catch (error) {
      clearInterval(machine.timer);
      return { problem: error.message };
    }
  }),
);
console.log(JSON.stringify(outcomes));
process.exit();
