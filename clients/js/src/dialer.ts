/** Opens a carrier to a relay: WebTransport with the certificate's hash, and WebSocket where that fails. */

import { CarrierError, bytesOfHex, messageOf, openWebSocket, openWebTransport } from "./carriers.js";
import type { Carrier } from "./carriers.js";

export interface DialOptions {
  /** SHA-256 of the relay's certificate (several: any of them). Fetched from `/cert-hash` when left out. */
  certificateHash?: string | readonly string[] | undefined;
  /** "auto": WebTransport, and WebSocket where that fails. */
  transport?: "auto" | "webtransport" | "websocket" | undefined;
  /** "framed" (the default) registers and gets an address; "raw" is one bare frame per datagram. */
  encapsulation?: "framed" | "raw" | undefined;
  /**
   * What lets this client in where the relay asks for tokens; a function is asked before each attempt, for tokens
   * expire. It goes into WebTransport's URL, and among the subprotocols of a WebSocket.
   */
  token?: string | (() => string | Promise<string>) | undefined;
  /** Milliseconds that opening a carrier may take before the next kind is tried. */
  timeout?: number | undefined;
}

const TRANSPORTS = ["auto", "webtransport", "websocket"] as const;
const ENCAPSULATIONS = ["framed", "raw"] as const;
const DEFAULT_TIMEOUT = 5000;
/** The same where there is another relay to go to. */
const TIMEOUT_WITH_OTHERS = 3000;
/** Milliseconds; timers take longer times for none. */
const MAX_TIMEOUT = 2 ** 31 - 1;
const TOKEN_FIELD = "token";
/** Characters of a token (RFC 6750, section 2.1). */
const TOKEN = /^[A-Za-z0-9_.+/=~-]*$/;
/** Subprotocols of a WebSocket: what is spoken, and how one begins that is a token. */
const SUBPROTOCOL = "binary";
const TOKEN_PREFIX = "token.";
/** Before a session's path: where the relay tells pages why it refuses one, which browsers do not. */
const ADMISSION = "/admission";
/** Nothing of it is shown: it may be another secret. */
const NO_TOKEN = "the token is none: it is a text of letters, digits and - . _ ~ + / =";
/** Characters of a reason that are shown. */
const MAX_REASON = 300;

export class Dialer {
  /** Whether datagrams are bare frames. */
  readonly raw: boolean;
  /** Whether there is another relay to go to where this one does not answer. */
  hasOthers = false;
  readonly #url: URL;
  readonly #transport: (typeof TRANSPORTS)[number];
  readonly #hashes: readonly string[] | undefined;
  /** What was asked for, if anything. */
  readonly #givenTimeout: number | undefined;
  readonly #token: DialOptions["token"];
  /** Whether the relay has told hashes: without them there is no way in, so one that does not answer is not there. */
  #hasTold = false;
  /** Whether the latest attempt failed before a carrier was tried. */
  #costNothing = false;

  /** Throws TypeError for arguments that are wrong. */
  constructor(url: string, options: DialOptions) {
    this.#url = new URL(url);
    const { protocol, host, pathname } = this.#url;
    /** Without the query, which may hold a token. */
    const shown = `${protocol}//${host}${pathname}`;
    if (!/^(https?|wss?):$/.test(protocol)) throw new TypeError(`not a relay's address: ${shown}`);
    const said = this.#url.searchParams.get("encap");
    const wanted = wordOf("encapsulation", options.encapsulation, ENCAPSULATIONS) ?? said;
    if (said !== null && said !== wanted) throw new TypeError(`the URL of ${shown} says the encapsulation ${said}`);
    this.raw = wanted === "raw";
    // A room may be called so: its framed sessions are at /room/raw.
    if (!this.raw && said === null && /^(\/room\/[^/]*)?\/raw\/?$/.test(pathname)) {
      throw new TypeError(
        `${shown} is for emulators that know only a URL: it carries bare frames and gives no address. ` +
          'Leave "raw" out of it, or say { encapsulation: "raw" }.',
      );
    }
    const hash = options.certificateHash;
    this.#hashes = hash === undefined ? undefined : typeof hash === "string" ? [hash] : hash;
    this.#hashes?.forEach(bytesOfHex);
    const transport = wordOf("transport", options.transport, TRANSPORTS) ?? "auto";
    this.#transport = protocol.startsWith("ws") ? "websocket" : transport;
    this.#givenTimeout = options.timeout;
    if (!(this.#timeout > 0 && this.#timeout <= MAX_TIMEOUT)) throw new TypeError(`not a time in milliseconds: ${this.#timeout}`);
    this.#token = options.token;
    if (typeof this.#token !== "function" && !isToken(this.#token ?? "")) throw new TypeError(NO_TOKEN);
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
    const token = (typeof this.#token === "function" ? await this.#token() : this.#token) ?? "";
    if (!isToken(token)) throw new CarrierError(NO_TOKEN);
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
        const url = this.#address(this.#secure ? "wss:" : "ws:", token, { tokenElsewhere: true });
        return await openWebSocket(url, protocols, onDatagram, this.#timeout);
      } catch (error) {
        problems.push(messageOf(error));
      }
    }
    const reason = await this.#askWhy(token);
    throw new CarrierError(reason === "" ? problems.join("; ") : reason);
  }

  get #timeout(): number {
    return this.#givenTimeout ?? (this.hasOthers ? TIMEOUT_WITH_OTHERS : DEFAULT_TIMEOUT);
  }

  get #secure(): boolean {
    return this.#url.protocol === "https:" || this.#url.protocol === "wss:";
  }

  /** A token that is sent `tokenElsewhere` is the only one, too: the relay takes no two. */
  #address(protocol: string, token: string, { before = "", tokenElsewhere = false } = {}): string {
    // Setting URL.protocol would keep the default port of the old one out of the text.
    const { hostname, port, pathname } = this.#url;
    const query = new URLSearchParams(this.#url.search);
    if (this.raw) query.set("encap", "raw");
    if (token !== "") query.set(TOKEN_FIELD, token);
    if (token !== "" && tokenElsewhere) query.delete(TOKEN_FIELD);
    const search = String(query);
    const host = `${hostname}${port === "" ? "" : `:${port}`}`;
    return `${protocol}//${host}${before}${pathname}${search === "" ? "" : `?${search}`}`;
  }

  /** Why the relay refuses a session; empty when it does not, or cannot be asked. */
  async #askWhy(token: string): Promise<string> {
    try {
      const response = await fetch(this.#address(this.#secure ? "https:" : "http:", token, { before: ADMISSION }), {
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

/** One of the words that there are, undefined where none was said; another one would mean what nobody has asked for. */
function wordOf<Word extends string>(option: string, said: Word | undefined, words: readonly Word[]): Word | undefined {
  if (said != null && !words.includes(said)) throw new TypeError(`${option}: ${String(said)} is none of ${words.join(", ")}`);
  return said ?? undefined;
}

function isToken(said: unknown): said is string {
  return typeof said === "string" && TOKEN.test(said);
}
