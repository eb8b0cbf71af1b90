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
import { CardMac, MAC_LENGTH, formatMac, isAt, randomMac } from "./mac.js";
import { recall, recallRandomMac, remember } from "./keepsakes.js";
import { Places } from "./places.js";
import { Registration } from "./registration.js";
import { Retries } from "./retries.js";
import { CHUNK, CONTROL, Chunker, FRAME, MAX_FRAME, MIN_FRAME, Reassembler, encodeControl, parseControl } from "./wire.js";
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
export async function connect(url, options = {}) {
    const nic = new NetworkInterface(url, options);
    await nic.start();
    return nic;
}
/** Made by {@link connect}. */
export class NetworkInterface {
    statistics = {
        framesSent: 0,
        framesReceived: 0,
        bytesSent: 0,
        bytesReceived: 0,
        framesDropped: 0,
        malformed: 0,
        reconnects: 0,
        roundTrip: undefined,
    };
    onframe;
    onstate;
    onassigned;
    ondraining;
    #places;
    #card;
    #name;
    #reconnect;
    #state = "connecting";
    #assigned;
    /** What the relay has told this card: its address, and what shows that the MAC is its own. */
    #had;
    #hasRandomMac;
    #forget;
    #carrier;
    /** Counts carriers; what a former one still delivers is not for this card any more. */
    #session = 0;
    #registration;
    /** The MAC that the relay knows the session by. */
    #registered;
    #chunker = new Chunker();
    #reassembler = new Reassembler();
    /** Whether frames are kept while there is no carrier: before the first one, and for a new MAC's. */
    #holds = true;
    #held = [];
    #openSince = 0;
    #heartbeats;
    /** Waits for the next heartbeat anew: a wait that began without another relay is too long with one. */
    #rearm;
    #heartbeatSent = 0;
    #unanswered = 0;
    #retries = new Retries();
    /** Whether another session has taken the MAC: two cards throw each other out in turns, and should do so slowly. */
    #isOusted = false;
    #retry;
    /** @internal Use {@link connect}. `card` decides about the MAC in place of `options.mac`. */
    constructor(url, options, card) {
        this.#places = new Places(url, options);
        this.#hasRandomMac = card === undefined && options.mac === undefined;
        this.#card = card ?? new CardMac(options.mac ?? recallRandomMac(this.#places.place) ?? randomMac());
        this.#forget = remember(() => this.#leavePage());
        this.#name = options.name ?? "";
        this.#reconnect = options.reconnect ?? true;
        this.onframe = options.onframe ?? (() => { });
        this.onstate = options.onstate ?? (() => { });
        this.onassigned = options.onassigned ?? (() => { });
        this.ondraining = options.ondraining ?? (() => { });
    }
    /** The card's MAC on the LAN; zeros until the guest's is known. */
    get mac() {
        return this.#card.lan ?? new Uint8Array(MAC_LENGTH);
    }
    get #dialer() {
        return this.#places.current;
    }
    get state() {
        return this.#state;
    }
    /** The address that the relay gave; undefined before that, and with raw encapsulation. */
    get assigned() {
        return this.#assigned;
    }
    /** What carries the frames at present. */
    get carrier() {
        return this.#carrier?.kind;
    }
    /** Sends an Ethernet frame (destination MAC first, no FCS). Never throws; what is dropped is counted. */
    send(frame) {
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
        if (isNews || this.#holds || this.#state === "registering")
            this.#hold(frame);
        else
            this.statistics.framesDropped++;
        if (isNews)
            this.#changeMac();
    }
    /** @internal An emulator says which MAC its guest's device has. */
    deviceHas(mac) {
        if (this.#card.deviceHas(mac))
            this.#changeMac();
    }
    /** Says goodbye to the relay and ends for good. */
    close() {
        clearTimeout(this.#retry);
        this.#leave();
        this.#enter("closed", "closed by this side");
    }
    /** @internal The first attempt. `patience` is how long the guest's MAC is waited for, in milliseconds. */
    async start(patience = GUEST_PATIENCE) {
        for (let left = this.#places.length;;) {
            this.#enter("connecting", "");
            try {
                await this.#begin(patience);
                return;
            }
            catch (error) {
                if (--left > 0 && !this.#over()) {
                    this.#places.goOn();
                    continue;
                }
                this.#enter("closed", messageOf(error));
                throw error;
            }
        }
    }
    async #begin(patience) {
        const registered = this.#register(await this.#dial());
        if (this.#card.lan === undefined)
            await firstOf(registered, patience);
        if (this.#card.lan === undefined) {
            registered.catch((error) => this.#retryLater(messageOf(error)));
        }
        else {
            await registered;
        }
    }
    // -- connecting -----------------------------------------------------------------------------------
    async #dial() {
        const session = ++this.#session;
        const carrier = await this.#dialer.open((datagram) => {
            if (session === this.#session)
                this.#receive(datagram);
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
    async #register(carrier) {
        if (this.#dialer.raw) {
            this.#open(carrier);
            return;
        }
        this.#enter("registering", "");
        try {
            await new Promise((resolve, reject) => {
                this.#registration = new Registration(carrier, (problem) => {
                    this.#registration = undefined;
                    if (problem === undefined) {
                        this.#open(carrier);
                        resolve();
                    }
                    else {
                        reject(problem);
                    }
                });
                this.#followCard();
            });
        }
        catch (error) {
            this.#carrier = undefined;
            carrier.close("no address", false);
            throw error;
        }
    }
    #changeMac() {
        this.#assigned = undefined;
        this.#followCard();
    }
    /** Makes what the relay knows of the card's MAC true again, where that can be done now. */
    #followCard() {
        const { lan } = this.#card;
        const registered = this.#registered;
        if (lan === undefined || (registered !== undefined && isAt(lan, 0, registered)))
            return;
        if (registered === undefined && (this.#dialer.raw || this.#registration !== undefined)) {
            this.#registered = lan;
            const had = this.#recall(lan);
            this.#registration?.ask(lan, this.#name, had?.secret ?? "", had?.ip);
            this.#flush();
        }
        else if (this.#state === "open") {
            // An address is a session's until its end: one machine is not to hold two.
            this.#leave();
            this.#renew(`the guest's MAC is ${formatMac(lan)} now`);
        }
    }
    #open(carrier) {
        this.#holds = false;
        this.#openSince = Date.now();
        this.#enter("open", carrier.kind);
        if (this.#carrier !== carrier)
            return; // closed by whoever was told
        void this.#serve(carrier);
        this.#followCard();
        this.#flush();
    }
    /** Waits for the carrier's end, then replaces it. */
    async #serve(carrier) {
        const silence = new Promise((resolve) => {
            if (this.#dialer.raw)
                return;
            this.#unanswered = 0;
            this.#watch(carrier, () => {
                this.#places.goOn();
                resolve({ code: 0, reason: "the relay is silent" });
                carrier.close("the relay is silent", false);
            });
        });
        const ending = await Promise.race([carrier.closed, silence]);
        if (this.#carrier !== carrier)
            return;
        this.#unwatch();
        this.#carrier = undefined;
        this.#lost(ending);
    }
    /** Sends heartbeats for as long as they are answered, and says so when they are not. */
    #watch(carrier, onSilence) {
        const since = Date.now();
        this.#rearm = () => {
            const interval = !this.#hasOthers ? HEARTBEAT_INTERVAL : this.#isMissed ? ANSWERED_WITHIN : WATCHFUL_INTERVAL;
            clearTimeout(this.#heartbeats);
            this.#heartbeats = setTimeout(() => {
                if (this.#beat(carrier))
                    this.#watch(carrier, onSilence);
                else
                    onSilence();
            }, Math.min(interval, since + interval - Date.now()));
        };
        this.#rearm();
    }
    /** Sends no more heartbeats. */
    #unwatch() {
        clearTimeout(this.#heartbeats);
        this.#rearm = undefined;
    }
    get #hasOthers() {
        return this.#places.length > 1;
    }
    /** Whether as many heartbeats were not answered as may be. */
    get #isMissed() {
        return this.#unanswered >= (this.#hasOthers ? MAX_UNANSWERED_WATCHFUL : MAX_UNANSWERED);
    }
    /** Asks for a sign of life; false when several were asked for and none came. */
    #beat(carrier) {
        if (this.#isMissed)
            return false;
        this.#unanswered++;
        this.#heartbeatSent = Date.now();
        carrier.send(encodeControl({ type: "Heartbeat" }));
        return true;
    }
    #lost(ending) {
        const lasted = Date.now() - this.#openSince;
        const takenOver = ending.code % WEBSOCKET_CODES === TAKEN_OVER;
        if (lasted >= (takenOver ? STABLE_AGAINST_OTHERS : STABLE))
            this.#retries.startOver();
        this.#isOusted = takenOver && !this.#card.follows;
        if (takenOver && lasted < (this.#card.follows ? ELDER : INTRUDER)) {
            this.#card.yield();
            this.#renew(`${describe(ending)}; the guest goes on as ${formatMac(this.mac)}`);
            return;
        }
        // Soon enough to find the other one young.
        if (takenOver && this.#card.follows)
            this.#retries.startOver();
        this.#retryLater(describe(ending));
    }
    /** Says goodbye to the relay, if there is one. */
    #leave() {
        const carrier = this.#part();
        if (carrier === undefined)
            return;
        if (!this.#dialer.raw)
            carrier.send(encodeControl({ type: "Disconnect" }));
        carrier.close("the client leaves", true);
    }
    /** Lets go of the carrier, if there is one. */
    #part() {
        const carrier = this.#carrier;
        if (carrier !== undefined) {
            if (this.#state === "open" && Date.now() - this.#openSince >= STABLE)
                this.#retries.startOver();
            this.#unwatch();
            this.#carrier = undefined;
            this.#session++;
        }
        return carrier;
    }
    /** The page is left: the relay keeps what the card has for the page that follows, or for this one. */
    #leavePage() {
        const { lan } = this.#card;
        if (lan === undefined)
            return undefined;
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
    #recall(mac) {
        if (this.#had === undefined || !isAt(mac, 0, Uint8Array.from(this.#had.mac))) {
            this.#had = recall(this.#places.place, mac);
        }
        return this.#had;
    }
    #keepsake(mac, told) {
        return {
            place: this.#places.place,
            mac: [...mac],
            secret: told?.resume ?? "",
            ip: told?.assigned.ip,
            random: this.#hasRandomMac,
        };
    }
    /** Begins again under another MAC, with an address of its own. */
    #renew(reason) {
        this.#assigned = undefined;
        this.#holds = true;
        this.#schedule(reason);
    }
    #retryLater(reason) {
        if (this.#reconnect)
            this.#schedule(reason);
        else
            this.#enter("closed", reason);
    }
    #schedule(reason) {
        if (this.#over())
            return;
        const retryIn = this.#retries.next(this.#dialer.failsCheaply && !this.#isOusted);
        this.#retry = setTimeout(() => void this.#again(), retryIn);
        this.#enter("waiting", reason, retryIn);
    }
    async #again() {
        this.#enter("connecting", "");
        try {
            await this.#register(await this.#dial());
            this.statistics.reconnects++;
        }
        catch (error) {
            this.#places.goOn();
            this.#retryLater(messageOf(error));
        }
    }
    // -- sending --------------------------------------------------------------------------------------
    #transmit(frame) {
        const carrier = this.#carrier;
        const known = this.#card.toLan(frame);
        // The copy in both branches: emulators hand out views of memory that changes.
        const sent = this.#dialer.raw
            ? carrier.send(known === frame ? frame.slice() : known)
            : this.#chunker.wrap(known, carrier.wholeFrame).every((datagram) => carrier.send(datagram));
        if (sent) {
            this.statistics.framesSent++;
            this.statistics.bytesSent += frame.length;
        }
        else {
            this.statistics.framesDropped++;
        }
    }
    #hold(frame) {
        if (this.#held.length >= MAX_HELD) {
            this.#held.shift();
            this.statistics.framesDropped++;
        }
        this.#held.push(frame.slice());
    }
    #flush() {
        if (this.#state === "open")
            for (const frame of this.#held.splice(0))
                this.#transmit(frame);
    }
    // -- receiving ------------------------------------------------------------------------------------
    #receive(datagram) {
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
                if (frame !== undefined)
                    this.#deliver(frame);
                break;
            }
            case CONTROL:
                this.#control(datagram, now);
                break;
            default:
                this.statistics.malformed++;
        }
    }
    #deliver(frame) {
        if (frame.length < MIN_FRAME || frame.length > MAX_FRAME) {
            this.statistics.malformed++;
            return;
        }
        this.statistics.framesReceived++;
        this.statistics.bytesReceived += frame.length;
        this.onframe(this.#card.toGuest(frame));
    }
    #control(datagram, now) {
        const message = parseControl(datagram);
        switch (message?.type) {
            case "Assigned": {
                const before = this.#assigned;
                this.#assigned = message.assigned;
                this.#places.learn(message.urls);
                this.#rearm?.();
                if (this.#registered !== undefined)
                    this.#had = this.#keepsake(this.#registered, message);
                this.#registration?.end();
                if (String(before?.ip) !== String(message.assigned.ip))
                    this.onassigned(message.assigned);
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
    #over() {
        return this.#state === "closed";
    }
    #enter(state, reason, retryIn) {
        if (this.#over())
            return;
        this.#state = state;
        if (state === "closed") {
            this.#forget();
            this.statistics.framesDropped += this.#held.splice(0).length;
        }
        try {
            this.onstate(retryIn === undefined ? { state, reason } : { state, reason, retryIn });
        }
        catch (error) {
            throwLater(error);
        }
    }
}
function describe({ code, reason }) {
    return reason || (code === 0 ? "the connection was lost" : `closed with code ${code}`);
}
/** Waits for the promise, but no longer than so many milliseconds. */
async function firstOf(promise, milliseconds) {
    let timer;
    const over = new Promise((resolve) => {
        timer = setTimeout(resolve, milliseconds);
    });
    try {
        await Promise.race([promise, over]);
    }
    finally {
        clearTimeout(timer);
    }
}
