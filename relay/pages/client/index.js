export { connect, NetworkInterface } from "./client.js";
export { CarrierError } from "./carriers.js";
export { attachV86, connectV86 } from "./v86.js";
export { connectVirtio } from "./virtio.js";
