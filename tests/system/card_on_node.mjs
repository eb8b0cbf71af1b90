// One network card of vmrelay-client's in a program: asks the gateway for its MAC address, as a guest would.
//   node card_on_node.mjs URL
import { connect } from "vmrelay-client";

const mac = [0x52, 0x54, 0, 7, 7, 7];
try {
  let answer;
  const answered = new Promise((resolve) => (answer = resolve));
  const nic = await connect(process.argv[2], {
    mac: Uint8Array.from(mac),
    onframe: (frame) => {
      if (frame[12] === 8 && frame[13] === 6 && frame[21] === 2) answer([...frame.subarray(22, 32)]);
    },
  });
  const { ip } = nic.assigned;
  nic.send(Uint8Array.of(...Array(6).fill(255), ...mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...ip, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2));
  console.log(JSON.stringify({ carrier: nic.carrier, gateway: await answered }));
  nic.close();
} catch (error) {
  console.log(JSON.stringify({ problem: error.message }));
}
