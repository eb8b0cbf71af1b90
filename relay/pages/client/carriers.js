/** What carries datagrams: a WebTransport session, or a WebSocket with one datagram per binary message. */
/** Datagrams handed to WebTransport that it has not taken yet; beyond it the path is slower than the VM. */
const MAX_WAITING = 512;
/** Bytes that a WebSocket holds back. */
const MAX_BUFFERED = 512 * 1024;
/** What a WebSocket ends with when its client leaves. */
const NORMAL = 1000;
/** Tells the relay that this card will be back; over WebSocket it is 4000 more. */
const COMING_BACK = 10;
/** Where closing codes of applications begin. */
const WEBSOCKET_CODES = 4000;
/** Thrown when a carrier cannot be opened; the message is for people. */
export class CarrierError extends Error {
    name = "CarrierError";
}
/** Opens a WebTransport session. `hashes` are SHA-256 hashes of certificates, 64 hex digits each. */
export async function openWebTransport(url, hashes, onDatagram, timeout) {
    const options = {};
    if (hashes.length > 0) {
        options.serverCertificateHashes = hashes.map((hash) => ({ algorithm: "sha-256", value: bytesOfHex(hash) }));
    }
    const transport = new WebTransport(url, options);
    const closed = transport.closed.then(({ closeCode = 0, reason = "" }) => ({ code: closeCode, reason }), (error) => ({ code: 0, reason: messageOf(error) }));
    try {
        await withTimeout(transport.ready, timeout);
    }
    catch (error) {
        transport.close();
        throw new CarrierError(`WebTransport: ${messageOf(error)}`);
    }
    const { datagrams } = transport;
    // The specification has moved from an attribute to a method; browsers have one or the other.
    const modern = datagrams;
    const writer = (modern.createWritable?.() ?? datagrams.writable).getWriter();
    void read(datagrams.readable, onDatagram);
    let waiting = 0;
    const done = () => {
        waiting--;
    };
    return {
        kind: "webtransport",
        wholeFrame: undefined,
        closed,
        send(datagram) {
            if (waiting >= MAX_WAITING)
                return false;
            waiting++;
            writer.write(datagram).then(done, done);
            return true;
        },
        close(reason, isGoodbye) {
            transport.close({ closeCode: isGoodbye ? 0 : COMING_BACK, reason });
        },
    };
}
async function read(readable, onDatagram) {
    const reader = readable.getReader();
    for (;;) {
        // What fails to be read is the session's end; `closed` says more.
        const { value } = await reader.read().catch(() => ({ value: undefined }));
        if (value === undefined)
            return;
        try {
            onDatagram(value);
        }
        catch (error) {
            throwLater(error);
        }
    }
}
/** What a listener throws is its page's to hear of, as with events, and no matter of who has called it. */
export function throwLater(error) {
    queueMicrotask(() => {
        throw error;
    });
}
/** The platform's WebSocket, or that of the package `ws`: Node has one of its own from version 22 on. */
async function webSocketClass() {
    if (typeof WebSocket !== "undefined")
        return WebSocket;
    try {
        // Not a literal, so that bundlers do not look for it: browsers never come here.
        const name = "ws";
        const module = (await import(/* @vite-ignore */ /* webpackIgnore: true */ name));
        return module.WebSocket;
    }
    catch {
        throw new CarrierError("WebSocket: there is none here; use Node 22 or later, or install the package ws");
    }
}
/** Opens a WebSocket; `protocols` are the subprotocols that are offered. */
export async function openWebSocket(url, protocols, onDatagram, timeout) {
    const socket = new (await webSocketClass())(url, protocols);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
        if (data instanceof ArrayBuffer)
            onDatagram(new Uint8Array(data));
    };
    const closed = new Promise((resolve) => {
        socket.onclose = ({ code, reason }) => resolve({ code, reason });
    });
    const opened = new Promise((resolve, reject) => {
        socket.onopen = () => resolve();
        // Browsers do not tell why, Node does; Node's does not always close, and `ws` throws what nobody listens to.
        socket.onerror = (event) => {
            const why = "message" in event ? String(event.message) : "";
            reject(new CarrierError(why || "the connection failed"));
        };
        void closed.then(({ reason }) => reject(new CarrierError(reason || "the connection failed")));
    });
    try {
        await withTimeout(opened, timeout);
    }
    catch (error) {
        socket.close();
        throw new CarrierError(`WebSocket: ${messageOf(error)}`);
    }
    return {
        kind: "websocket",
        wholeFrame: Infinity,
        closed,
        send(datagram) {
            if (socket.readyState !== socket.OPEN || socket.bufferedAmount > MAX_BUFFERED)
                return false;
            socket.send(datagram);
            return true;
        },
        close(reason, isGoodbye) {
            socket.close(isGoodbye ? NORMAL : WEBSOCKET_CODES + COMING_BACK, reason);
        },
    };
}
/** 64 hex digits, with or without colons between bytes, as 32 bytes. Throws TypeError. */
export function bytesOfHex(hash) {
    const digits = hash.replaceAll(":", "");
    if (!/^[0-9a-f]{64}$/i.test(digits))
        throw new TypeError(`not a SHA-256 hash of 64 hex digits: ${hash.slice(0, 80)}`);
    return Uint8Array.from(digits.match(/../g), (byte) => parseInt(byte, 16));
}
export function messageOf(error) {
    return error instanceof Error ? error.message : String(error);
}
async function withTimeout(promise, milliseconds) {
    let timer;
    const expired = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new CarrierError(`no answer within ${milliseconds / 1000} s`)), milliseconds);
    });
    try {
        return await Promise.race([promise, expired]);
    }
    finally {
        clearTimeout(timer);
    }
}
