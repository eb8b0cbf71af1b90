// A page with v86 machines, as users write it. Nothing of it runs: it is compiled.
import { CarrierError, attachV86, connect, connectV86, connectVirtio } from "vmrelay-client";
import type { Address, Assigned, NetworkInterface, Options, State, StateChange, Statistics, V86Like } from "vmrelay-client";
import { connectV86 as sameConnectV86 } from "vmrelay-client/v86";
import { connectVirtio as sameConnectVirtio } from "vmrelay-client/virtio";
import { V86 } from "v86";

export async function machine(url: string): Promise<string> {
  const emulator = new V86({ net_device: { type: "virtio" }, memory_size: 128 * 1024 * 1024 });
  const nic: NetworkInterface = await connectV86(new V86({ net_device: { type: "ne2k" } }), url);
  await connectV86(emulator, url, { name: "builder", mac: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3), reconnect: false });
  await sameConnectV86(emulator, url, { onassigned: ({ ip }: Assigned) => console.log(ip.join(".")) });
  const part: () => void = attachV86(emulator, await connect(url, { mac: "guest" }));
  part();
  const like: V86Like = emulator;
  await connectV86(like, url);
  await connectV86({ add_listener() {}, remove_listener() {}, bus: { send() {} } }, url);
  const address: Address | undefined = nic.assigned?.ip;
  return address?.join(".") ?? "";
}

export async function card(url: string, hashes: readonly string[], token?: string): Promise<Statistics> {
  const options: Options = {
    certificateHash: hashes,
    token,
    mac: undefined,
    onassigned: undefined,
    transport: "auto",
    encapsulation: "framed",
    timeout: 1000,
    onframe: (frame: Uint8Array) => console.log(frame.length),
    onstate: ({ state, reason, retryIn = 0 }: StateChange) => console.log(state, reason, retryIn),
  };
  try {
    const nic = await connect(url, options);
    const state: State = nic.state;
    nic.send(new Uint8Array(60));
    nic.onframe = (frame) => console.log(state, frame.subarray(0, 6), nic.mac.length, nic.carrier);
    nic.close();
    return nic.statistics;
  } catch (error) {
    throw error instanceof CarrierError ? new Error(error.message) : error;
  }
}

export async function device(url: string, receive: (buffer: Uint8Array) => void): Promise<(buffer: Uint8Array) => void> {
  const port = await connectVirtio(url, receive, { headerLength: 12 });
  await sameConnectVirtio(url, receive);
  return (buffer) => port.transmit(buffer);
}
