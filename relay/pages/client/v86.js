/** Connects a v86 machine's network card: its bus says `net0-send`, and hears `net0-receive`. */
import { connect } from "./client.js";
/**
 * Joins a machine (with `net_device: { type: "virtio" }` or `"ne2k"` and no `relay_url`) and a network card,
 * whose `onframe` is the machine's from now on. Returns what parts them again.
 */
export function attachV86(emulator, nic) {
    const send = (frame) => nic.send(frame);
    emulator.add_listener("net0-send", send);
    nic.onframe = (frame) => emulator.bus.send("net0-receive", frame);
    return () => {
        emulator.remove_listener("net0-send", send);
        nic.onframe = () => { };
    };
}
/** Connects to the relay at `url`, and attaches the machine. */
export async function connectV86(emulator, url, options = {}) {
    const nic = await connect(url, options);
    attachV86(emulator, nic);
    return nic;
}
