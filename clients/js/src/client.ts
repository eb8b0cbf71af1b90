/**
 * A network card on a relay's LAN.
 *
 * Theory of operation. One attempt opens a carrier (WebTransport, else WebSocket) and, framed, registers the
 * MAC until the relay answers with an address. A lost carrier is replaced at once, else after delays that grow
 * to 30 s (see retries.ts); the relay gives the same MAC the same address. Datagrams get lost: Register is repeated, and a
 * relay that answers none of three heartbeats counts as gone. They are counted, since time proves nothing:
 * browsers let timers of hidden pages run once a minute, and no timer runs while a computer sleeps.
 *
 * The MAC may be the guest's (see mac.ts). Until its first frame tells it there is a carrier and no
 * registration; another one later on means another session, since an address is a session's until that ends.
 */

import { CarrierError, messageOf, throwLater } from "./carriers.js";
import type { Carrier, Ending } from "./carriers.js";
import type { Dialer, DialOptions } from "./dialer.js";
import { CardMac, MAC_LENGTH, formatMac, isAt, randomMac } from "./mac.js";
import { recall, recallRandomMac, remember } from "./keepsakes.js";
import type { Keepsake } from "./keepsakes.js";
import { Places } from "./places.js";
import { Registration } from "./registration.js";
import { Retries } from "./retries.js";
import { CHUNK, CONTROL, Chunker, FRAME, MAX_FRAME, MIN_FRAME, Reassembler, encodeControl, parseControl } from "./wire.js";
import type { Assigned } from "./wire.js";

export type State =
  /** A carrier is being opened. */
  | "connecting"
  /** There is a carrier; the relay has not given an address yet, or waits to hear the guest's MAC. */
  | "registering"
  /** Frames travel. */
  | "open"
  /** The carrier was lost; a new attempt follows. */
  | "waiting"
  /** Over: closed by `close()`, or the first attempt failed, or reconnecting is off. */
  | "closed";

export interface StateChange {
  readonly state: State;
  /** Why, in words: the relay's closing reason, or what the browser says. */
  readonly reason: string;
  /** With "waiting": milliseconds until the next attempt. */
  readonly retryIn?: number;
}

export interface Statistics {
  framesSent: number;
  framesReceived: number;
  bytesSent: number;
  bytesReceived: number;
  /** Frames that could not be sent: no connection, or it is slower than the VM, or too many before an address. */
  framesDropped: number;
  /** What the relay sent that could not be understood. */
  malformed: number;
  reconnects: number;
  /** Milliseconds that the latest heartbeat took; undefined before the first, and with raw encapsulation. */
  roundTrip: number | undefined;
}

export interface Options extends DialOptions {
  /** Six bytes; or "guest", the one that its frames come from. Random in 52:54:00 when left out. */
  mac?: Uint8Array | "guest" | undefined;
  /** The guest's host name: the LAN finds it as NAME.vm.internal. */
  name?: string | undefined;
  /** Called with each Ethernet frame: destination MAC first, no FCS. The bytes are the receiver's to keep. */
  onframe?: ((frame: Uint8Array) => void) | undefined;
  onstate?: ((change: StateChange) => void) | undefined;
  /** Called when the relay gives an address, and when it is another one after reconnecting. */
  onassigned?: ((assigned: Assigned) => void) | undefined;
  /**
   * Called when the relay takes no new sessions, and ends this one in so many seconds; undefined where it does not say
   * when. Until then it goes on as it is.
   */
  ondraining?: ((seconds: number | undefined) => void) | undefined;
  /** Replace a lost connection; true by default. */
  reconnect?: boolean | undefined;
}

const HEARTBEAT_INTERVAL = 15_000;
/** Heartbeats without an answer after which the relay is gone. */
const MAX_UNANSWERED = 3;
/** The same where there is another relay to go to, and how long the last of them is waited for: 8 s at most. */
const WATCHFUL_INTERVAL = 3000;
const MAX_UNANSWERED_WATCHFUL = 2;
const ANSWERED_WITHIN = 2000;
/** A connection must have lasted this long for the delays to start over. */
const STABLE = 1000;
/** And so long if another session took its MAC. */
const STABLE_AGAINST_OTHERS = 60_000;
/** Frames kept until there is an address: what a machine says while it boots. */
const MAX_HELD = 64;
/** Milliseconds that {@link connect} waits for a guest's first frame: one that runs speaks soon. */
const GUEST_PATIENCE = 1000;
/**
 * A card of a MAC that was chosen for it, and that lost it so soon, is the second one of this MAC: that of a tab that
 * was duplicated, say. The first one is back at once, and the second goes on under another.
 */
const INTRUDER = 2000;
/** A card that has had its guest's MAC for so long takes it back; a younger one goes on under another. */
const ELDER = 5000;
/** Closing code of a session whose MAC another one has registered; over WebSocket it is 4000 more. */
const TAKEN_OVER = 4;
const WEBSOCKET_CODES = 4000;

/**
 * Connects a network card to the relay at `url`: `https://HOST:PORT/`, `http://127.0.0.1:PORT/` in
 * development, or `wss:`/`ws:` for WebSocket alone. Several are relays that share the LAN: they are tried in this
 * order, and when one is lost the next is gone to, as are those that the relay names itself. Resolves once frames
 * travel (with `mac: "guest"` also when a second has passed without one); rejects with an Error when the first attempt
 * fails, TypeError for arguments that are wrong.
 */
export async function connect(url: string | readonly string[], options: Options = {}): Promise<NetworkInterface> {
  const nic = new NetworkInterface(url, options);
  await nic.start();
  return nic;
}

/** Made by {@link connect}. */
export class NetworkInterface {
  readonly statistics: Statistics = {
    framesSent: 0,
    framesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    framesDropped: 0,
    malformed: 0,
    reconnects: 0,
    roundTrip: undefined,
  };
  onframe: (frame: Uint8Array) => void;
  onstate: (change: StateChange) => void;
  onassigned: (assigned: Assigned) => void;
  ondraining: (seconds: number | undefined) => void;

  readonly #places: Places;
  readonly #card: CardMac;
  readonly #name: string;
  readonly #reconnect: boolean;
  #state: State = "connecting";
  #assigned: Assigned | undefined;
  /** What the relay has told this card: its address, and what shows that the MAC is its own. */
  #had: Keepsake | undefined;
  readonly #hasRandomMac: boolean;
  readonly #forget: () => void;
  #carrier: Carrier | undefined;
  /** Counts carriers; what a former one still delivers is not for this card any more. */
  #session = 0;
  #registration: Registration | undefined;
  /** The MAC that the relay knows the session by. */
  #registered: Uint8Array | undefined;
  #chunker = new Chunker();
  #reassembler = new Reassembler();
  /** Whether frames are kept while there is no carrier: before the first one, and for a new MAC's. */
  #holds = true;
  #held: Uint8Array[] = [];
  #openSince = 0;
  #heartbeats: ReturnType<typeof setTimeout> | undefined;
  /** Waits for the next heartbeat anew: a wait that began without another relay is too long with one. */
  #rearm: (() => void) | undefined;
  #heartbeatSent = 0;
  #unanswered = 0;
  readonly #retries = new Retries();
  /** Whether another session has taken the MAC: two cards throw each other out in turns, and should do so slowly. */
  #isOusted = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  /** @internal Use {@link connect}. `card` decides about the MAC in place of `options.mac`. */
  constructor(url: string | readonly string[], options: Options, card?: CardMac) {
    this.#places = new Places(url, options);
    this.#hasRandomMac = card === undefined && options.mac === undefined;
    this.#card = card ?? new CardMac(options.mac ?? recallRandomMac(this.#places.place) ?? randomMac());
    this.#forget = remember(() => this.#leavePage());
    this.#name = options.name ?? "";
    this.#reconnect = options.reconnect ?? true;
    this.onframe = options.onframe ?? (() => {});
    this.onstate = options.onstate ?? (() => {});
    this.onassigned = options.onassigned ?? (() => {});
    this.ondraining = options.ondraining ?? (() => {});
  }

  /** The card's MAC on the LAN; zeros until the guest's is known. */
  get mac(): Uint8Array {
    return this.#card.lan ?? new Uint8Array(MAC_LENGTH);
  }

  get #dialer(): Dialer {
    return this.#places.current;
  }

  get state(): State {
    return this.#state;
  }

  /** The address that the relay gave; undefined before that, and with raw encapsulation. */
  get assigned(): Assigned | undefined {
    return this.#assigned;
  }

  /** What carries the frames at present. */
  get carrier(): "webtransport" | "websocket" | undefined {
    return this.#carrier?.kind;
  }

  /** Sends an Ethernet frame (destination MAC first, no FCS). Never throws; what is dropped is counted. */
  send(frame: Uint8Array): void {
    // Also of what has no length, an ArrayBuffer for one.
    if (!(frame?.length >= MIN_FRAME && frame.length <= MAX_FRAME) || this.#over()) {
      this.statistics.framesDropped++;
      return;
    }
    const isNews = this.#card.hear(frame);
    if (this.#state === "open" && !isNews) {
      this.#transmit(frame);
      return;
    }
    // Kept before the MAC is acted on: the answer may come within that call, and takes the frame along.
    if (isNews || this.#holds || this.#state === "registering") this.#hold(frame);
    else this.statistics.framesDropped++;
    if (isNews) this.#changeMac();
  }

  /** @internal An emulator says which MAC its guest's device has. */
  deviceHas(mac: Uint8Array): void {
    if (this.#card.deviceHas(mac)) this.#changeMac();
  }

  /** Says goodbye to the relay and ends for good. */
  close(): void {
    clearTimeout(this.#retry);
    this.#leave();
    this.#enter("closed", "closed by this side");
  }

  /** @internal The first attempt. `patience` is how long the guest's MAC is waited for, in milliseconds. */
  async start(patience = GUEST_PATIENCE): Promise<void> {
    for (let left = this.#places.length; ; ) {
      this.#enter("connecting", "");
      try {
        await this.#begin(patience);
        return;
      } catch (error) {
        if (--left > 0 && !this.#over()) {
          this.#places.goOn();
          continue;
        }
        this.#enter("closed", messageOf(error));
        throw error;
      }
    }
  }

  async #begin(patience: number): Promise<void> {
    const registered = this.#register(await this.#dial());
    if (this.#card.lan === undefined) await firstOf(registered, patience);
    if (this.#card.lan === undefined) {
      registered.catch((error: unknown) => this.#retryLater(messageOf(error)));
    } else {
      await registered;
    }
  }

  // -- connecting -----------------------------------------------------------------------------------

  async #dial(): Promise<Carrier> {
    const session = ++this.#session;
    const carrier = await this.#dialer.open((datagram) => {
      if (session === this.#session) this.#receive(datagram);
    });
    if (this.#over()) {
      carrier.close("the client leaves", true);
      throw new CarrierError("closed by this side");
    }
    this.#carrier = carrier;
    this.#chunker = new Chunker();
    this.#reassembler = new Reassembler();
    this.#registered = undefined;
    return carrier;
  }

  /** Registers the MAC, once there is one, and opens; settles when that is done or has failed. */
  async #register(carrier: Carrier): Promise<void> {
    if (this.#dialer.raw) {
      this.#open(carrier);
      return;
    }
    this.#enter("registering", "");
    try {
      await new Promise<void>((resolve, reject) => {
        this.#registration = new Registration(carrier, (problem) => {
          this.#registration = undefined;
          if (problem === undefined) {
            this.#open(carrier);
            resolve();
          } else {
            reject(problem);
          }
        });
        this.#followCard();
      });
    } catch (error) {
      this.#carrier = undefined;
      carrier.close("no address", false);
      throw error;
    }
  }

  #changeMac(): void {
    this.#assigned = undefined;
    this.#followCard();
  }

  /** Makes what the relay knows of the card's MAC true again, where that can be done now. */
  #followCard(): void {
    const { lan } = this.#card;
    const registered = this.#registered;
    if (lan === undefined || (registered !== undefined && isAt(lan, 0, registered))) return;
    if (registered === undefined && (this.#dialer.raw || this.#registration !== undefined)) {
      this.#registered = lan;
      const had = this.#recall(lan);
      this.#registration?.ask(lan, this.#name, had?.secret ?? "", had?.ip);
      this.#flush();
    } else if (this.#state === "open") {
      // An address is a session's until its end: one machine is not to hold two.
      this.#leave();
      this.#renew(`the guest's MAC is ${formatMac(lan)} now`);
    }
  }

  #open(carrier: Carrier): void {
    this.#holds = false;
    this.#openSince = Date.now();
    this.#enter("open", carrier.kind);
    if (this.#carrier !== carrier) return; // closed by whoever was told
    void this.#serve(carrier);
    this.#followCard();
    this.#flush();
  }

  /** Waits for the carrier's end, then replaces it. */
  async #serve(carrier: Carrier): Promise<void> {
    const silence = new Promise<Ending>((resolve) => {
      if (this.#dialer.raw) return;
      this.#unanswered = 0;
      this.#watch(carrier, () => {
        this.#places.goOn();
        resolve({ code: 0, reason: "the relay is silent" });
        carrier.close("the relay is silent", false);
      });
    });
    const ending = await Promise.race([carrier.closed, silence]);
    if (this.#carrier !== carrier) return;
    this.#unwatch();
    this.#carrier = undefined;
    this.#lost(ending);
  }

  /** Sends heartbeats for as long as they are answered, and says so when they are not. */
  #watch(carrier: Carrier, onSilence: () => void): void {
    const since = Date.now();
    this.#rearm = () => {
      const interval = !this.#hasOthers ? HEARTBEAT_INTERVAL : this.#isMissed ? ANSWERED_WITHIN : WATCHFUL_INTERVAL;
      clearTimeout(this.#heartbeats);
      this.#heartbeats = setTimeout(
        () => {
          if (this.#beat(carrier)) this.#watch(carrier, onSilence);
          else onSilence();
        },
        Math.min(interval, since + interval - Date.now()),
      );
    };
    this.#rearm();
  }

  /** Sends no more heartbeats. */
  #unwatch(): void {
    clearTimeout(this.#heartbeats);
    this.#rearm = undefined;
  }

  get #hasOthers(): boolean {
    return this.#places.length > 1;
  }

  /** Whether as many heartbeats were not answered as may be. */
  get #isMissed(): boolean {
    return this.#unanswered >= (this.#hasOthers ? MAX_UNANSWERED_WATCHFUL : MAX_UNANSWERED);
  }

  /** Asks for a sign of life; false when several were asked for and none came. */
  #beat(carrier: Carrier): boolean {
    if (this.#isMissed) return false;
    this.#unanswered++;
    this.#heartbeatSent = Date.now();
    carrier.send(encodeControl({ type: "Heartbeat" }));
    return true;
  }

  #lost(ending: Ending): void {
    const lasted = Date.now() - this.#openSince;
    const takenOver = ending.code % WEBSOCKET_CODES === TAKEN_OVER;
    if (lasted >= (takenOver ? STABLE_AGAINST_OTHERS : STABLE)) this.#retries.startOver();
    this.#isOusted = takenOver && !this.#card.follows;
    if (takenOver && lasted < (this.#card.follows ? ELDER : INTRUDER)) {
      this.#card.yield();
      this.#renew(`${describe(ending)}; the guest goes on as ${formatMac(this.mac)}`);
      return;
    }
    // Soon enough to find the other one young.
    if (takenOver && this.#card.follows) this.#retries.startOver();
    this.#retryLater(describe(ending));
  }

  /** Says goodbye to the relay, if there is one. */
  #leave(): void {
    const carrier = this.#part();
    if (carrier === undefined) return;
    if (!this.#dialer.raw) carrier.send(encodeControl({ type: "Disconnect" }));
    carrier.close("the client leaves", true);
  }

  /** Lets go of the carrier, if there is one. */
  #part(): Carrier | undefined {
    const carrier = this.#carrier;
    if (carrier !== undefined) {
      if (this.#state === "open" && Date.now() - this.#openSince >= STABLE) this.#retries.startOver();
      this.#unwatch();
      this.#carrier = undefined;
      this.#session++;
    }
    return carrier;
  }

  /** The page is left: the relay keeps what the card has for the page that follows, or for this one. */
  #leavePage(): Keepsake | undefined {
    const { lan } = this.#card;
    if (lan === undefined) return undefined;
    const carrier = this.#state === "open" ? this.#part() : undefined;
    if (carrier !== undefined) {
      carrier.close("the page is left", false);
      // Comes about in a page that the browser has only put aside.
      this.#retryLater("the page was left");
    }
    const had = this.#recall(lan);
    return had === undefined ? this.#keepsake(lan) : { ...had, random: this.#hasRandomMac };
  }

  /** What was had under the MAC, by this card or one of the page before. */
  #recall(mac: Uint8Array): Keepsake | undefined {
    if (this.#had === undefined || !isAt(mac, 0, Uint8Array.from(this.#had.mac))) {
      this.#had = recall(this.#places.place, mac);
    }
    return this.#had;
  }

  #keepsake(mac: Uint8Array, told?: { assigned: Assigned; resume: string }): Keepsake {
    return {
      place: this.#places.place,
      mac: [...mac],
      secret: told?.resume ?? "",
      ip: told?.assigned.ip,
      random: this.#hasRandomMac,
    };
  }

  /** Begins again under another MAC, with an address of its own. */
  #renew(reason: string): void {
    this.#assigned = undefined;
    this.#holds = true;
    this.#schedule(reason);
  }

  #retryLater(reason: string): void {
    if (this.#reconnect) this.#schedule(reason);
    else this.#enter("closed", reason);
  }

  #schedule(reason: string): void {
    if (this.#over()) return;
    const retryIn = this.#retries.next(this.#dialer.failsCheaply && !this.#isOusted);
    this.#retry = setTimeout(() => void this.#again(), retryIn);
    this.#enter("waiting", reason, retryIn);
  }

  async #again(): Promise<void> {
    this.#enter("connecting", "");
    try {
      await this.#register(await this.#dial());
      this.statistics.reconnects++;
    } catch (error) {
      this.#places.goOn();
      this.#retryLater(messageOf(error));
    }
  }

  // -- sending --------------------------------------------------------------------------------------

  #transmit(frame: Uint8Array): void {
    const carrier = this.#carrier!;
    const known = this.#card.toLan(frame);
    // The copy in both branches: emulators hand out views of memory that changes.
    const sent = this.#dialer.raw
      ? carrier.send(known === frame ? frame.slice() : known)
      : this.#chunker.wrap(known, carrier.wholeFrame).every((datagram) => carrier.send(datagram));
    if (sent) {
      this.statistics.framesSent++;
      this.statistics.bytesSent += frame.length;
    } else {
      this.statistics.framesDropped++;
    }
  }

  #hold(frame: Uint8Array): void {
    if (this.#held.length >= MAX_HELD) {
      this.#held.shift();
      this.statistics.framesDropped++;
    }
    this.#held.push(frame.slice());
  }

  #flush(): void {
    if (this.#state === "open") for (const frame of this.#held.splice(0)) this.#transmit(frame);
  }

  // -- receiving ------------------------------------------------------------------------------------

  #receive(datagram: Uint8Array): void {
    const now = Date.now();
    this.#unanswered = 0;
    if (this.#dialer.raw) {
      this.#deliver(datagram);
      return;
    }
    switch (datagram[0]) {
      case FRAME:
        this.#deliver(datagram.subarray(1));
        break;
      case CHUNK: {
        const frame = this.#reassembler.accept(datagram, now);
        if (frame !== undefined) this.#deliver(frame);
        break;
      }
      case CONTROL:
        this.#control(datagram, now);
        break;
      default:
        this.statistics.malformed++;
    }
  }

  #deliver(frame: Uint8Array): void {
    if (frame.length < MIN_FRAME || frame.length > MAX_FRAME) {
      this.statistics.malformed++;
      return;
    }
    this.statistics.framesReceived++;
    this.statistics.bytesReceived += frame.length;
    this.onframe(this.#card.toGuest(frame));
  }

  #control(datagram: Uint8Array, now: number): void {
    const message = parseControl(datagram);
    switch (message?.type) {
      case "Assigned": {
        const before = this.#assigned;
        this.#assigned = message.assigned;
        this.#places.learn(message.urls);
        this.#rearm?.();
        if (this.#registered !== undefined) this.#had = this.#keepsake(this.#registered, message);
        this.#registration?.end();
        if (String(before?.ip) !== String(message.assigned.ip)) this.onassigned(message.assigned);
        break;
      }
      case "HeartbeatAck":
        this.statistics.roundTrip = now - this.#heartbeatSent;
        break;
      case "Draining":
        this.ondraining(message.seconds);
        break;
      case "Error":
        this.#registration?.end(new CarrierError(message.message || "the relay refuses the registration"));
        break;
      case undefined:
        this.statistics.malformed++;
        break;
      case "Other":
        break;
    }
  }

  #over(): boolean {
    return this.#state === "closed";
  }

  #enter(state: State, reason: string, retryIn?: number): void {
    if (this.#over()) return;
    this.#state = state;
    if (state === "closed") {
      this.#forget();
      this.statistics.framesDropped += this.#held.splice(0).length;
    }
    try {
      this.onstate(retryIn === undefined ? { state, reason } : { state, reason, retryIn });
    } catch (error) {
      throwLater(error);
    }
  }
}

function describe({ code, reason }: Ending): string {
  return reason || (code === 0 ? "the connection was lost" : `closed with code ${code}`);
}

/** Waits for the promise, but no longer than so many milliseconds. */
async function firstOf(promise: Promise<void>, milliseconds: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout>;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  try {
    await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer!);
  }
}
