/** Opens a carrier to a relay: WebTransport with the certificate's hash, and WebSocket where that fails. */

import { CarrierError, bytesOfHex, messageOf, openWebSocket, openWebTransport } from "./carriers.js";
import type { Carrier } from "./carriers.js";

export interface DialOptions {
  /** SHA-256 of the relay's certificate (several: any of them). Fetched from `/cert-hash` when left out. */
  certificateHash?: string | readonly string[];
  /** "auto": WebTransport, and WebSocket where that fails. */
  transport?: "auto" | "webtransport" | "websocket";
  /** "framed" (the default) registers and gets an address; "raw" is one bare frame per datagram. */
  encapsulation?: "framed" | "raw";
  /**
   * What lets this client in where the relay asks for tokens; a function is asked before each attempt, for tokens
   * expire. It goes into WebTransport's URL, and among the subprotocols of a WebSocket.
   */
  token?: string | (() => string | Promise<string>);
  /** Milliseconds that opening a carrier may take before the next kind is tried. */
  timeout?: number;
}

const DEFAULT_TIMEOUT = 5000;
const TOKEN_FIELD = "token";
/** Subprotocols of a WebSocket: what is spoken, and how one begins that is a token. */
const SUBPROTOCOL = "binary";
const TOKEN_PREFIX = "token.";
/** Before a session's path: where the relay tells pages why it refuses one, which browsers do not. */
const ADMISSION = "/admission";
/** Characters of a reason that are shown. */
const MAX_REASON = 300;

export class Dialer {
  /** Whether datagrams are bare frames. */
  readonly raw: boolean;
  readonly #url: URL;
  readonly #transport: "auto" | "webtransport" | "websocket";
  readonly #hashes: readonly string[] | undefined;
  readonly #timeout: number;
  readonly #token: DialOptions["token"];
  /** Whether the relay has told hashes: without them there is no way in, so one that does not answer is not there. */
  #hasTold = false;
  /** Whether the latest attempt failed before a carrier was tried. */
  #costNothing = false;

  /** Throws TypeError for arguments that are wrong. */
  constructor(url: string, options: DialOptions) {
    this.#url = new URL(url);
    if (!/^(https?|wss?):$/.test(this.#url.protocol)) throw new TypeError(`not a relay's address: ${url}`);
    const said = this.#url.searchParams.get("encap");
    this.raw = options.encapsulation === "raw" || said === "raw";
    if (!this.raw && said === null && /\/raw\/?$/.test(this.#url.pathname)) {
      throw new TypeError(
        `${url} is for emulators that know only a URL: it carries bare frames and gives no address. ` +
          'Leave "raw" out of it, or say { encapsulation: "raw" }.',
      );
    }
    const hash = options.certificateHash;
    this.#hashes = hash === undefined ? undefined : typeof hash === "string" ? [hash] : hash;
    this.#hashes?.forEach(bytesOfHex);
    this.#transport = this.#url.protocol.startsWith("ws") ? "websocket" : (options.transport ?? "auto");
    this.#timeout = options.timeout ?? DEFAULT_TIMEOUT;
    this.#token = options.token;
  }

  /** The URL, in one spelling. */
  get address(): string {
    return this.#url.href;
  }

  /** The same LAN's URL at another relay, `https://HOST[:PORT]`; undefined for what is none. */
  addressAt(relay: string): string | undefined {
    try {
      const { protocol, host } = new URL(relay);
      if (protocol !== "https:" || host === "") return undefined;
      const own = host === this.#url.host ? this.#url.protocol : this.#url.protocol.startsWith("ws") ? "wss:" : "https:";
      return new URL(`${own}//${host}${this.#url.pathname}${this.#url.search}`).href;
    } catch {
      return undefined;
    }
  }

  /** Which LAN it is, without what else a URL may say. */
  get place(): string {
    const { host, pathname, searchParams } = this.#url;
    return `${host}${pathname} ${searchParams.get("room") ?? ""}`.trim();
  }

  /**
   * Whether the latest attempt has cost nothing if it failed, as when the relay is not there. Chromium makes every
   * handshake of WebTransport that fails delay those of the next minutes, twice as long each time.
   */
  get failsCheaply(): boolean {
    return this.#costNothing || this.#transport === "websocket";
  }

  /** `onDatagram` is called with what comes. Throws CarrierError. */
  async open(onDatagram: (datagram: Uint8Array) => void): Promise<Carrier> {
    this.#costNothing = false;
    const problems: string[] = [];
    const token = typeof this.#token === "function" ? await this.#token() : (this.#token ?? "");
    if (this.#transport !== "websocket") {
      const hashes = this.#hashes ?? (await this.#fetchHashes());
      try {
        if (typeof WebTransport === "undefined") throw new CarrierError("WebTransport: there is none here");
        return await openWebTransport(this.#address("https:", token), hashes, onDatagram, this.#timeout);
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    if (this.#transport !== "webtransport") {
      try {
        const protocols = token === "" ? [] : [SUBPROTOCOL, TOKEN_PREFIX + token];
        const url = this.#address(this.#secure ? "wss:" : "ws:");
        return await openWebSocket(url, protocols, onDatagram, this.#timeout);
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    const reason = await this.#askWhy(token);
    throw new CarrierError(reason === "" ? problems.join("; ") : reason);
  }

  get #secure(): boolean {
    return this.#url.protocol === "https:" || this.#url.protocol === "wss:";
  }

  #address(protocol: string, token = "", before = ""): string {
    // Setting URL.protocol would keep the default port of the old one out of the text.
    const { hostname, port, pathname } = this.#url;
    const query = new URLSearchParams(this.#url.search);
    if (this.raw) query.set("encap", "raw");
    if (token !== "") query.set(TOKEN_FIELD, token);
    const search = String(query);
    const host = `${hostname}${port === "" ? "" : `:${port}`}`;
    return `${protocol}//${host}${before}${pathname}${search === "" ? "" : `?${search}`}`;
  }

  /** Why the relay refuses a session; empty when it does not, or cannot be asked. */
  async #askWhy(token: string): Promise<string> {
    try {
      const response = await fetch(this.#address(this.#secure ? "https:" : "http:", token, ADMISSION), {
        cache: "no-store",
        referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(this.#timeout),
      });
      const said = response.status >= 400 ? (await response.text()).trim() : "";
      return said === "" ? "" : `the relay refuses with status ${response.status}: ${said.slice(0, MAX_REASON)}`;
    } catch {
      return "";
    }
  }

  /** Hashes that the relay tells; none when it cannot be asked. Throws CarrierError when it could be once. */
  async #fetchHashes(): Promise<string[]> {
    try {
      const response = await fetch(new URL("/cert-hash", this.#url), {
        cache: "no-store",
        signal: AbortSignal.timeout(this.#timeout),
      });
      const said = (await response.json()) as Record<string, { hash: string; pinned: boolean } | null>;
      const hashes = [said["current"], said["next"]].flatMap((each) => (each?.pinned ? [each.hash] : []));
      // Only then is there no other way in: a certificate of an authority needs no hash.
      this.#hasTold = hashes.length > 0;
      return hashes;
    } catch {
      this.#costNothing = this.#hasTold;
      if (this.#hasTold) throw new CarrierError("the relay does not answer");
      return [];
    }
  }
}
