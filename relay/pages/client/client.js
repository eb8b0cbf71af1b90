/**
 * A network card on a relay's LAN.
 *
 * Theory of operation. One attempt opens a carrier (WebTransport, else WebSocket) and, framed, registers the
 * MAC until the relay answers with an address. A lost carrier is replaced after a delay that doubles from 0.5
 * to 30 s; the relay gives the same MAC the same address. Datagrams get lost: Register is repeated, and a
 * relay that answers no heartbeat for 45 s counts as gone.
 */
import { CarrierError, bytesOfHex, messageOf, openWebSocket, openWebTransport } from "./carriers.js";
import { CHUNK, CONTROL, Chunker, FRAME, MAX_FRAME, MIN_FRAME, Reassembler, encodeControl, parseControl } from "./wire.js";
const HEARTBEAT_INTERVAL = 15_000;
/** Three heartbeats. */
const SILENCE = 45_000;
/** Milliseconds between Registers; the last is how long the answer to the last one is waited for. */
const REGISTER_DELAYS = [250, 500, 1000, 2000, 2000, 4000];
const FIRST_RETRY = 500;
const LAST_RETRY = 30_000;
/** A connection must have lasted this long for the delays to start over: two cards with one MAC throw each
 * other out in turns, and should do so slowly. */
const STABLE = 60_000;
const DEFAULT_TIMEOUT = 5000;
/**
 * Connects a network card to the relay at `url`: `https://HOST:PORT/`, `http://127.0.0.1:PORT/` in
 * development, or `wss:`/`ws:` for WebSocket alone. Resolves once frames travel; rejects with an Error when
 * the first attempt fails, TypeError for arguments that are wrong.
 */
export async function connect(url, options = {}) {
    const nic = new NetworkInterface(url, options);
    await nic.start();
    return nic;
}
/** Made by {@link connect}. */
export class NetworkInterface {
    mac;
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
    #url;
    #raw;
    #transport;
    #hashes;
    #reconnect;
    #timeout;
    #state = "connecting";
    #assigned;
    #carrier;
    #chunker = new Chunker();
    #reassembler = new Reassembler();
    #answered = () => { };
    #heard = 0;
    #heartbeatSent = 0;
    #retry;
    /** @internal Use {@link connect}. */
    constructor(url, options) {
        this.#url = new URL(url);
        if (!/^(https?|wss?):$/.test(this.#url.protocol))
            throw new TypeError(`not a relay's address: ${url}`);
        this.mac = options.mac?.slice() ?? randomMac();
        if (this.mac.length !== 6 || (this.mac[0] & 1) !== 0)
            throw new TypeError("a card's MAC is six bytes, not multicast");
        const hash = options.certificateHash;
        this.#hashes = hash === undefined ? undefined : typeof hash === "string" ? [hash] : hash;
        this.#hashes?.forEach(bytesOfHex);
        this.#transport = this.#url.protocol.startsWith("ws") ? "websocket" : (options.transport ?? "auto");
        this.#raw = options.encapsulation === "raw" || this.#url.searchParams.get("encap") === "raw";
        this.#reconnect = options.reconnect ?? true;
        this.#timeout = options.timeout ?? DEFAULT_TIMEOUT;
        this.onframe = options.onframe ?? (() => { });
        this.onstate = options.onstate ?? (() => { });
        this.onassigned = options.onassigned ?? (() => { });
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
        const carrier = this.#carrier;
        let sent = false;
        if (carrier !== undefined && this.#state === "open" && frame.length >= MIN_FRAME && frame.length <= MAX_FRAME) {
            // The copy in both branches: emulators hand out views of memory that changes.
            sent = this.#raw
                ? carrier.send(new Uint8Array(frame))
                : this.#chunker.wrap(frame, carrier.wholeFrame).every((datagram) => carrier.send(datagram));
        }
        if (sent) {
            this.statistics.framesSent++;
            this.statistics.bytesSent += frame.length;
        }
        else {
            this.statistics.framesDropped++;
        }
    }
    /** Says goodbye to the relay and ends for good. */
    close() {
        clearTimeout(this.#retry?.timer);
        const carrier = this.#carrier;
        this.#carrier = undefined;
        if (carrier !== undefined) {
            if (!this.#raw)
                carrier.send(encodeControl({ type: "Disconnect" }));
            carrier.close("the client leaves");
        }
        this.#enter("closed", "closed by this side");
    }
    /** @internal The first attempt. */
    async start() {
        this.#enter("connecting", "");
        try {
            await this.#attach();
        }
        catch (error) {
            this.#enter("closed", messageOf(error));
            throw error;
        }
    }
    // -- connecting -----------------------------------------------------------------------------------
    async #attach() {
        const carrier = await this.#open();
        if (this.#over()) {
            carrier.close("the client leaves");
            throw new CarrierError("closed by this side");
        }
        this.#carrier = carrier;
        this.#chunker = new Chunker();
        this.#reassembler = new Reassembler();
        this.#heard = Date.now();
        if (!this.#raw) {
            this.#enter("registering", "");
            try {
                await this.#register(carrier);
            }
            catch (error) {
                this.#carrier = undefined;
                carrier.close("no address");
                throw error;
            }
        }
        this.#enter("open", carrier.kind);
        void this.#serve(carrier);
    }
    async #open() {
        const problems = [];
        const take = (datagram) => this.#receive(datagram);
        if (this.#transport !== "websocket") {
            try {
                const hashes = this.#hashes ?? (await this.#fetchHashes());
                return await openWebTransport(this.#address("https:"), hashes, take, this.#timeout);
            }
            catch (error) {
                problems.push(messageOf(error));
            }
        }
        if (this.#transport !== "webtransport") {
            try {
                const secure = this.#url.protocol === "https:" || this.#url.protocol === "wss:";
                return await openWebSocket(this.#address(secure ? "wss:" : "ws:"), take, this.#timeout);
            }
            catch (error) {
                problems.push(messageOf(error));
            }
        }
        throw new CarrierError(problems.join("; "));
    }
    #address(protocol) {
        // Setting URL.protocol would keep the default port of the old one out of the text.
        const { hostname, port, pathname } = this.#url;
        const query = new URLSearchParams(this.#url.search);
        if (this.#raw)
            query.set("encap", "raw");
        const search = query.size > 0 ? `?${query}` : "";
        return `${protocol}//${hostname}${port === "" ? "" : `:${port}`}${pathname}${search}`;
    }
    /** Hashes that the relay tells; none when it cannot be asked, as with a certificate of an authority. */
    async #fetchHashes() {
        try {
            const response = await fetch(new URL("/cert-hash", this.#url), {
                cache: "no-store",
                signal: AbortSignal.timeout(this.#timeout),
            });
            const said = (await response.json());
            return [said["current"], said["next"]].flatMap((each) => (each?.pinned ? [each.hash] : []));
        }
        catch {
            return [];
        }
    }
    async #register(carrier) {
        const answer = new Promise((resolve, reject) => {
            this.#answered = (problem) => (problem === undefined ? resolve() : reject(problem));
        });
        void carrier.closed.then(({ reason }) => this.#answered(new CarrierError(reason || "the relay closed the connection")));
        let attempt = 0;
        let timer;
        const ask = () => {
            const delay = REGISTER_DELAYS[attempt++];
            if (delay === undefined) {
                this.#answered(new CarrierError("the relay gives no address"));
            }
            else {
                carrier.send(encodeControl({ type: "Register", mac: [...this.mac] }));
                timer = setTimeout(ask, delay);
            }
        };
        ask();
        try {
            await answer;
        }
        finally {
            clearTimeout(timer);
            this.#answered = () => { };
        }
    }
    /** Waits for the carrier's end, then replaces it. */
    async #serve(carrier) {
        const since = Date.now();
        const heartbeats = this.#raw ? undefined : setInterval(() => this.#beat(carrier), HEARTBEAT_INTERVAL);
        const ending = await carrier.closed;
        clearInterval(heartbeats);
        if (this.#carrier !== carrier)
            return;
        this.#carrier = undefined;
        if (Date.now() - since >= STABLE)
            this.#retry = undefined;
        this.#retryLater(describe(ending));
    }
    #retryLater(reason) {
        if (this.#over())
            return;
        if (!this.#reconnect) {
            this.#enter("closed", reason);
            return;
        }
        const delay = Math.min(LAST_RETRY, this.#retry === undefined ? FIRST_RETRY : 2 * this.#retry.delay);
        // Spread by a quarter, so that a restarted relay does not see all its clients at once.
        const retryIn = delay * (0.75 + Math.random() / 2);
        this.#retry = { delay, timer: setTimeout(() => void this.#again(), retryIn) };
        this.#enter("waiting", reason, retryIn);
    }
    async #again() {
        this.#enter("connecting", "");
        try {
            await this.#attach();
            this.statistics.reconnects++;
        }
        catch (error) {
            this.#retryLater(messageOf(error));
        }
    }
    #beat(carrier) {
        const now = Date.now();
        if (now - this.#heard >= SILENCE) {
            carrier.close("the relay is silent");
            return;
        }
        this.#heartbeatSent = now;
        carrier.send(encodeControl({ type: "Heartbeat" }));
    }
    // -- receiving ------------------------------------------------------------------------------------
    #receive(datagram) {
        const now = Date.now();
        this.#heard = now;
        if (this.#raw) {
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
        this.onframe(frame);
    }
    #control(datagram, now) {
        const message = parseControl(datagram);
        switch (message?.type) {
            case "Assigned": {
                const before = this.#assigned;
                this.#assigned = message.assigned;
                this.#answered();
                if (String(before?.ip) !== String(message.assigned.ip))
                    this.onassigned(message.assigned);
                break;
            }
            case "HeartbeatAck":
                this.statistics.roundTrip = now - this.#heartbeatSent;
                break;
            case "Error":
                this.#answered(new CarrierError(message.message || "the relay refuses the registration"));
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
        this.onstate(retryIn === undefined ? { state, reason } : { state, reason, retryIn });
    }
}
function describe({ code, reason }) {
    return reason || (code === 0 ? "the connection was lost" : `closed with code ${code}`);
}
function randomMac() {
    return Uint8Array.of(0x52, 0x54, 0x00, ...crypto.getRandomValues(new Uint8Array(3)));
}
