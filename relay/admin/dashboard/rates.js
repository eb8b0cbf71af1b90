// Rates, from what was counted at two times.

const KEPT = 120;

/** Of each session, by the relay's clock. */
export class Rates {
  #before = new Map();

  /** Gives the sessions with `from` and `to`, bit/s from and to their guests since they were seen last. */
  of(peers) {
    const rated = peers.map((peer) => {
      const earlier = this.#before.get(peer.port) ?? peer;
      const since = peer.age - earlier.age;
      return { ...peer, from: rate(earlier.bytes_in, peer.bytes_in, since), to: rate(earlier.bytes_out, peer.bytes_out, since) };
    });
    this.#before = new Map(peers.map((peer) => [peer.port, peer]));
    return rated;
  }
}

/** Of all that is looked at, with the time that went by; what was before is forgotten when it is another room. */
export class History {
  samples = [];
  #before;
  #of;

  add({ bytes_in, bytes_out }, of) {
    const now = performance.now() / 1000;
    if (of !== this.#of) this.samples = [];
    else {
      const since = now - this.#before.now;
      this.samples.push({
        at: now,
        from: rate(this.#before.bytes_in, bytes_in, since),
        to: rate(this.#before.bytes_out, bytes_out, since),
      });
    }
    this.#of = of;
    this.#before = { bytes_in, bytes_out, now };
    this.samples = this.samples.filter(({ at }) => at > now - KEPT);
  }

  get latest() {
    return this.samples.at(-1) ?? { from: 0, to: 0 };
  }
}

/** A session that has left takes its bytes along: that is no negative rate. */
function rate(before, after, seconds) {
  return seconds > 0 ? Math.max(0, (8 * (after - before)) / seconds) : 0;
}
