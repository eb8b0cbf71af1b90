// The admin API as the page uses it. The token goes with every request as a header, and is kept in this tab alone.

const KEPT = "vmrelay-token";
const PATIENCE = 15_000;

/** The API said no, or did not answer; `status` is 0 where there was no answer. */
export class RelayError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Relay {
  #token = sessionStorage.getItem(KEPT) ?? "";

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    if (token === "") sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, token);
  }

  get(path, query) {
    return this.#json("GET", path, query);
  }

  post(path, fields = {}) {
    return this.#json("POST", path, {}, fields);
  }

  delete(path, query) {
    return this.#json("DELETE", path, query);
  }

  /** Gives the pieces of an answer without end as they come; `signal` ends it. */
  async *pieces(path, query, signal) {
    const response = await this.#ask("GET", path, query, { signal });
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        yield value;
      }
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  /** Gives the relay's events as they happen (server-sent events, which EventSource would ask for without token). */
  async *events(query, signal) {
    const decoder = new TextDecoder();
    let text = "";
    for await (const piece of this.pieces("/v1/events", query, signal)) {
      const blocks = (text + decoder.decode(piece, { stream: true })).split("\n\n");
      text = blocks.pop();
      const lines = blocks.flatMap((block) => block.split("\n")).filter((line) => line.startsWith("data: "));
      for (const line of lines) yield JSON.parse(line.slice("data: ".length));
    }
  }

  async #json(method, path, query, fields) {
    const body = fields === undefined ? undefined : JSON.stringify(fields);
    const response = await this.#ask(method, path, query, { body, signal: AbortSignal.timeout(PATIENCE) });
    return response.json();
  }

  async #ask(method, path, query = {}, options = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
    const url = given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
    const headers = this.#token === "" ? {} : { Authorization: `Bearer ${this.#token}` };
    let response;
    try {
      response = await fetch(url, { method, headers, ...options });
    } catch (error) {
      if (options.signal?.aborted && error.name === "AbortError") throw error;
      throw new RelayError(0, "the relay does not answer");
    }
    if (response.ok) return response;
    const reason = await response.json().then(({ error }) => error, () => response.statusText);
    throw new RelayError(response.status, reason);
  }
}
