// A network card that is told several relays, one of which is lost: what it has before and after.
//   node lost_machine_on_node.mjs URL...
import { connect } from "vmrelay-client";

const nic = await connect(process.argv.slice(2), { mac: Uint8Array.of(0x52, 0x54, 0, 7, 7, 8), transport: "websocket" });
const before = nic.assigned.ip;
await new Promise((resolve) => {
  nic.onstate = ({ state }) => state === "open" && resolve();
});
console.log(JSON.stringify({ before, after: nic.assigned.ip }));
process.exit();
