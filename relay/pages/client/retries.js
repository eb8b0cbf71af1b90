/**
 * When a card that lost its connection tries again: at once, a few times soon, then ever less often.
 *
 * A relay that was restarted tells its clients at once, and a computer that lost one network may be on another
 * already; a relay that is being restarted is back within seconds.
 */
/** Milliseconds within which the first attempt is made: many clients of one relay spread over them. */
const FIRST_WITHIN = 100;
/** Milliseconds between the attempts after it. */
const SOON = 250;
/** Attempts that are so close, where they cost nothing; each further one waits twice as long. */
const SOON_ATTEMPTS = 40;
const LAST = 30_000;
export class Retries {
    #attempts = 0;
    /** Of those that cost something. */
    #costly = 0;
    /** Begin with the shortest delay: the connection that was lost had lasted. */
    startOver() {
        this.#attempts = this.#costly = 0;
    }
    /** Milliseconds until the next attempt; `cheap` says whether the latest one has cost nothing. */
    next(cheap) {
        const attempt = this.#attempts++;
        if (attempt === 0)
            return FIRST_WITHIN * Math.random();
        // A relay that was away and is back is not to be paid for by what it cost to find it away.
        const doublings = cheap ? attempt - SOON_ATTEMPTS : this.#costly++;
        const delay = Math.min(SOON * 2 ** Math.max(0, doublings), LAST);
        // Spread by a quarter, so that a restarted relay does not see all its clients at once.
        return delay * (0.75 + Math.random() / 2);
    }
}
