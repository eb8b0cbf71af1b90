/**
 * What a page's cards had, for the page that follows it in the same tab: a reload is not to cost the guest its
 * address and its connections.
 *
 * Theory of operation. It is in sessionStorage, which is of one tab, and only from when a page is left (`pagehide`)
 * to when the next one loads this module. A tab that is duplicated meanwhile copies a storage without it, and so does
 * a window that the page opens: a secret is never in two pages. A page that crashes leaves nothing.
 */
const KEY = "vmrelay-cards";
/** Of as many cards. */
const MAX_KEPT = 64;
const cards = new Set();
let kept = [];
/** Has `leave` called when the page is left, for what its card has then. Returns what ends that. */
export function remember(leave) {
    cards.add(leave);
    return () => void cards.delete(leave);
}
/** What a card of the page before had under this MAC, once. */
export function recall(place, mac) {
    return take((each) => each.place === place && String(each.mac) === String([...mac]));
}
/** The MAC that was made up for a card of the page before, once; undefined when there is none left. */
export function recallRandomMac(place) {
    const found = kept.find((each) => each.place === place && each.random);
    if (found === undefined)
        return undefined;
    // The secret stays, for whoever registers the MAC.
    kept[kept.indexOf(found)] = { ...found, random: false };
    return Uint8Array.from(found.mac);
}
function take(isIt) {
    const at = kept.findIndex(isIt);
    return at < 0 ? undefined : kept.splice(at, 1)[0];
}
/** The tab's storage; undefined on Node, in workers, and where the browser keeps it from the page. */
function storage() {
    try {
        return typeof document === "undefined" ? undefined : sessionStorage;
    }
    catch {
        return undefined;
    }
}
function collect() {
    try {
        const found = JSON.parse(storage()?.getItem(KEY) ?? "[]");
        storage()?.removeItem(KEY);
        kept = Array.isArray(found) ? found.filter(isKeepsake) : [];
    }
    catch {
        kept = [];
    }
}
function store() {
    const had = [...cards].map((leave) => leave()).filter((each) => each !== undefined);
    try {
        storage()?.setItem(KEY, JSON.stringify([...had, ...kept].slice(0, MAX_KEPT)));
    }
    catch {
        // It is full, or the browser keeps nothing.
    }
}
function isKeepsake(value) {
    const { place, mac, secret, ip, random } = (value ?? {});
    return (typeof place === "string" && typeof secret === "string" && typeof random === "boolean" &&
        isBytes(mac, 6) && (ip === undefined || isBytes(ip, 4)));
}
function isBytes(value, length) {
    return Array.isArray(value) && value.length === length && value.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255);
}
if (storage() !== undefined) {
    collect();
    addEventListener("pagehide", store);
    // A page that the browser had only put aside: it has its cards still.
    addEventListener("pageshow", ({ persisted }) => {
        if (persisted)
            storage()?.removeItem(KEY);
    });
}
