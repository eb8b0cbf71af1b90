export { connect, NetworkInterface } from "./client.js";
export type { Options, State, StateChange, Statistics } from "./client.js";
export { CarrierError } from "./carriers.js";
export type { Address, Assigned } from "./wire.js";
export { attachV86, connectV86 } from "./v86.js";
export type { V86Like } from "./v86.js";
export { connectVirtio } from "./virtio.js";
export type { VirtioOptions, VirtioPort } from "./virtio.js";
