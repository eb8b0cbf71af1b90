/** The browser's side of WebTransport and WebSocket, with a relay's answers. */

import { vi } from "vitest";

export const ASSIGNED = { ip: [10, 0, 2, 10], gateway: [10, 0, 2, 2], netmask: [255, 255, 255, 0], dns: [8, 8, 8, 8] };

export function control(message: object): Uint8Array {
  return Uint8Array.of(0, ...new TextEncoder().encode(JSON.stringify(message)));
}

/** One connection as the relay sees it. */
export interface Link {
  readonly url: string;
  readonly options?: WebTransportOptions | undefined;
  readonly protocols?: string[];
  /** What the client sent. */
  readonly sent: Uint8Array[];
  deliver(datagram: Uint8Array): void;
  end(code: number, reason: string): void;
}

/** A relay; `answer` is called with each datagram of a client. A MAC has one address and one session. */
export class FakeRelay {
  readonly links: Link[] = [];
  readonly addresses = new Map<string, number[]>();
  readonly #owners = new Map<string, Link>();
  /** What is told for the client to come back with. */
  resume: string | undefined;
  /** Where the cluster's machines are, if it tells that. */
  urls: string[] | undefined;
  answer: (link: Link, datagram: Uint8Array) => void = (link, datagram) => {
    if (datagram[0] !== 0 || datagram[1] !== 0x7b) return;
    const { type, mac } = JSON.parse(new TextDecoder().decode(datagram.subarray(1)));
    if (type === "Heartbeat") link.deliver(control({ type: "HeartbeatAck" }));
    if (type !== "Register") return;
    const owner = this.#owners.get(String(mac));
    this.#owners.set(String(mac), link);
    if (owner !== undefined && owner !== link) owner.end(4004, "another session registered it");
    const ip = this.addresses.get(String(mac)) ?? [10, 0, 2, 10 + this.addresses.size];
    this.addresses.set(String(mac), ip);
    link.deliver(control({ type: "Assigned", ...ASSIGNED, ip, room: "lab", ...(this.resume === undefined ? {} : { resume: this.resume }), ...(this.urls === undefined ? {} : { urls: this.urls }) }));
  };

  /** What clients have said, without the bytes of frames. */
  said(link: Link): string[] {
    return link.sent.filter(([kind]) => kind === 0).map((datagram) => JSON.parse(new TextDecoder().decode(datagram.subarray(1))).type);
  }

  /** Is gone for three minutes, and there again for one, to cards that go by WebSockets. */
  async beAwayForLong(): Promise<void> {
    this.install({ webSocket: false });
    this.links[0]!.end(1006, "");
    await vi.advanceTimersByTimeAsync(180_000);
    this.install();
    await vi.advanceTimersByTimeAsync(60_000);
  }

  install({ webTransport = true, webSocket = true, hashes = undefined as object | undefined } = {}): void {
    const { links } = this;
    const answer = (link: Link, datagram: Uint8Array): void => this.answer(link, datagram);

    class FakeWebTransport {
      ready: Promise<void>;
      closed: Promise<WebTransportCloseInfo>;
      datagrams: unknown;
      end!: (code: number, reason: string) => void;
      constructor(url: string, options?: WebTransportOptions) {
        const incoming = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 100 }, { highWaterMark: 100 });
        const writer = incoming.writable.getWriter();
        this.closed = new Promise((resolve) => {
          this.end = (closeCode, reason) => resolve({ closeCode, reason });
        });
        this.ready = webTransport ? Promise.resolve() : Promise.reject(new Error("no UDP"));
        if (!webTransport) return;
        const link: Link = { url, options, sent: [], deliver: (datagram) => void writer.write(datagram), end: this.end };
        links.push(link);
        const writable = new WritableStream<Uint8Array>({
          write(datagram) {
            link.sent.push(datagram);
            answer(link, datagram);
          },
        });
        this.datagrams = { readable: incoming.readable, writable };
      }
      close({ closeCode = 0, reason = "" } = {}): void {
        this.end(closeCode, reason);
      }
    }

    class FakeWebSocket {
      readonly OPEN = 1;
      readyState = 0;
      bufferedAmount = 0;
      onopen = (): void => {};
      onclose = (_: { code: number; reason: string }): void => {};
      onmessage = (_: { data: unknown }): void => {};
      #link: Link;
      constructor(url: string, protocols: string[] = []) {
        this.#link = {
          url,
          protocols,
          sent: [],
          deliver: (datagram) => this.onmessage({ data: datagram.slice().buffer }),
          end: (code, reason) => {
            this.readyState = 3;
            this.onclose({ code, reason });
          },
        };
        queueMicrotask(() => {
          if (!webSocket) {
            this.#link.end(1006, "");
            return;
          }
          links.push(this.#link);
          this.readyState = 1;
          this.onopen();
        });
      }
      send(datagram: Uint8Array): void {
        this.#link.sent.push(datagram);
        answer(this.#link, datagram);
      }
      close(code = 1000, reason = ""): void {
        this.#link.end(code, reason);
      }
    }

    // Node 18 has it behind a flag only.
    vi.stubGlobal("crypto", { getRandomValues: (bytes: Uint8Array) => bytes.map(() => Math.random() * 256) });
    vi.stubGlobal("WebTransport", FakeWebTransport);
    vi.stubGlobal("WebSocket", FakeWebSocket);
    vi.stubGlobal("fetch", () =>
      hashes === undefined ? Promise.reject(new Error("no")) : Promise.resolve({ json: () => Promise.resolve(hashes) }),
    );
  }
}
