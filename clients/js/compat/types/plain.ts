// A program without a browser's types, as on Node.
import { connect } from "vmrelay-client";
import type { Options } from "vmrelay-client";

export async function card(url: string, options: Options): Promise<number> {
  const nic = await connect(url, options);
  nic.send(new Uint8Array(60));
  return nic.statistics.framesSent;
}
