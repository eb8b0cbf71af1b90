/** Asks the relay for an address, again and again until it answers: datagrams get lost. */
import { CarrierError } from "./carriers.js";
import { encodeControl } from "./wire.js";
/** Milliseconds between Registers; the last is how long the answer to the last one is waited for. */
const DELAYS = [250, 500, 1000, 2000, 2000, 4000];
export class Registration {
    #carrier;
    #done;
    #attempt = 0;
    #timer;
    #over = false;
    /** `done` is called once: without an argument when there is an address, else with what is wrong. */
    constructor(carrier, done) {
        this.#carrier = carrier;
        this.#done = done;
        void carrier.closed.then(({ reason }) => this.end(new CarrierError(reason || "the relay closed the connection")));
    }
    /**
     * Asks for the address of `mac`, whose guest calls itself `name` unless that is empty.
     *
     * `resume` is what the relay told with an earlier address of this MAC: it shows that the MAC is ours. `ip` is that
     * address, for a relay that has forgotten it.
     */
    ask(mac, name, resume, ip) {
        if (this.#over)
            return;
        const delay = DELAYS[this.#attempt++];
        if (delay === undefined) {
            this.end(new CarrierError("the relay gives no address"));
            return;
        }
        this.#timer = setTimeout(() => this.ask(mac, name, resume, ip), delay);
        const said = {
            ...(name === "" ? {} : { name }),
            ...(resume === "" ? {} : { resume }),
            ...(ip === undefined ? {} : { ip }),
        };
        this.#carrier.send(encodeControl({ type: "Register", mac: [...mac], ...said }));
    }
    /** The relay has answered, or never will. */
    end(problem) {
        if (this.#over)
            return;
        this.#over = true;
        clearTimeout(this.#timer);
        this.#done(problem);
    }
}
