// @ts-check
/**
 * Choices that are fetched when they are first looked at: the front-end half of the ComfyUI RFC "API improvements"
 * (1.1 lazy combos, 2.3 both forms of a definition). No DOM; the clock and the fetch are given, so that it runs anywhere.
 *
 * What holds, per key (cache_key, or route and query_params):
 * 1. Nothing is fetched before the first look, and never twice at a time.
 * 2. A look never waits: it gets what is known, and what is too old is renewed behind it.
 * 3. Too old is what was fetched `refresh` ms ago (0: never), what was forced, or what its signal said.
 * 4. After the n-th failure in a row the next fetch waits for min(1000·2^(n-1), 10000) ms.
 */

export * from "./nodebrief.js";
export * from "./nodeforms.js";

/** @typedef {import("./nodeforms.js").Remote} Remote */

/**
 * @typedef {object} Entry
 * @property {any} body the whole answer: widgets may take different keys of it
 * @property {number | null} fetched when, ms
 * @property {boolean} stale
 * @property {number} failures in a row
 * @property {number} failed when last, ms
 * @property {unknown} error the last failure; null after a success
 * @property {Promise<void> | null} flight
 * @property {AbortController | null} abort
 * @property {Set<string>} signals
 * @property {Remote} remote whose address is asked
 */

/** @param {number} failures in a row, at least 1 @returns {number} milliseconds */
export function backoff(failures) {
  return Math.min(1000 * 2 ** (failures - 1), 10_000);
}

/** @param {Remote} remote */
export function cacheKey(remote) {
  // A custom key is text, the other one an object: neither can be taken for the other.
  return JSON.stringify(remote.cache_key ?? { route: remote.route, params: remote.query_params });
}

/**
 * Route and parameters as one address. Lists are joined by commas, as the RFC's own endpoint splits them.
 * @param {Remote} remote
 */
export function address(remote) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(remote.query_params)) {
    if (value !== null && value !== undefined) params.set(name, Array.isArray(value) ? value.join(",") : String(value));
  }
  const query = params.toString();
  return query ? `${remote.route}${remote.route.includes("?") ? "&" : "?"}${query}` : remote.route;
}

export class RemoteOptions {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  #fetch;
  #now;
  #changed;

  /**
   * @param {object} means
   * @param {(address: string, signal: AbortSignal) => Promise<any>} means.fetch resolves with the answer's JSON
   * @param {() => number} [means.now] milliseconds
   * @param {(key: string) => void} [means.changed] called after an answer or a failure
   */
  constructor({ fetch, now = Date.now, changed = () => {} }) {
    this.#fetch = fetch;
    this.#now = now;
    this.#changed = changed;
  }

  /**
   * What is known now, null before the first answer; whatever is missing or too old is fetched behind it.
   * @param {Remote} remote
   * @returns {any[] | null}
   */
  look(remote) {
    const entry = this.#entry(remote);
    if (this.#isDue(entry, remote)) void this.#start(entry);
    return pick(entry.body, remote);
  }

  /** What is known now; nothing is fetched. @param {Remote} remote @returns {any[] | null} */
  peek(remote) {
    return pick(this.#entries.get(cacheKey(remote))?.body, remote);
  }

  /**
   * As `look`, but waits for a fetch that is due or under way. Never rejects: `problem` says what went wrong.
   * @param {Remote} remote
   */
  async load(remote) {
    const entry = this.#entry(remote);
    if (this.#isDue(entry, remote)) void this.#start(entry);
    while (entry.flight) await entry.flight; // one that was forced meanwhile is awaited, too
    return pick(entry.body, remote);
  }

  /**
   * The next look fetches, whatever the age and past failures; until then the old choices stay.
   * @param {Remote} remote
   */
  forceUpdate(remote) {
    const entry = this.#entry(remote);
    entry.abort?.abort();
    Object.assign(entry, { stale: true, failures: 0, flight: null, abort: null });
  }

  /**
   * A signal of the server: what was looked at and names this signal is fetched anew, at once.
   * @param {string} signal
   */
  invalidate(signal) {
    for (const entry of this.#entries.values()) {
      if (!entry.signals.has(signal)) continue;
      entry.stale = true;
      if (!entry.flight && !this.#isBackingOff(entry)) void this.#start(entry);
    }
  }

  /** Every signal that something looked at has named. @returns {string[]} */
  signals() {
    return [...new Set([...this.#entries.values()].flatMap((entry) => [...entry.signals]))];
  }

  /** Why the last fetch failed, null where it did not. @param {Remote} remote */
  problem(remote) {
    return this.#entries.get(cacheKey(remote))?.error ?? null;
  }

  /** @param {Remote} remote @returns {Entry} */
  #entry(remote) {
    const key = cacheKey(remote);
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = {
        body: undefined,
        fetched: null,
        stale: false,
        failures: 0,
        failed: 0,
        error: null,
        flight: null,
        abort: null,
        signals: new Set(),
        remote,
      };
      this.#entries.set(key, entry);
    }
    if (remote.invalidation_signal) entry.signals.add(remote.invalidation_signal);
    return entry;
  }

  /** @param {Entry} entry @param {Remote} remote */
  #isDue(entry, remote) {
    if (entry.flight || this.#isBackingOff(entry)) return false;
    if (entry.fetched === null || entry.stale) return true;
    return remote.refresh > 0 && this.#now() - entry.fetched >= remote.refresh;
  }

  /** @param {Entry} entry */
  #isBackingOff(entry) {
    return entry.failures > 0 && this.#now() - entry.failed < backoff(entry.failures);
  }

  /** @param {Entry} entry */
  #start(entry) {
    const abort = new AbortController();
    entry.abort = abort;
    entry.stale = false; // a signal that comes from here on is newer than the answer
    const flight = this.#run(entry, abort);
    entry.flight = flight;
    return flight;
  }

  /** @param {Entry} entry @param {AbortController} abort */
  async #run(entry, abort) {
    await null; // `flight` is set before anything else happens, even if the fetch throws at once
    try {
      if (abort.signal.aborted) return;
      const body = await this.#fetch(address(entry.remote), abort.signal);
      if (entry.abort !== abort) return; // forced since: a newer one is under way, or will be
      if (pick(body, entry.remote) === null) throw new Error(`${entry.remote.route}: no list of choices in the answer`);
      Object.assign(entry, { body, fetched: this.#now(), failures: 0, error: null });
    } catch (error) {
      if (entry.abort !== abort) return;
      Object.assign(entry, { stale: true, failures: entry.failures + 1, failed: this.#now(), error });
    }
    Object.assign(entry, { flight: null, abort: null });
    this.#changed(cacheKey(entry.remote));
  }
}

/** @param {any} body @param {Remote} remote @returns {any[] | null} */
function pick(body, remote) {
  const found = remote.response_key === null ? body : body?.[remote.response_key];
  return Array.isArray(found) ? found : null;
}

/**
 * A combo widget's options whose `values` are looked up when somebody reads them, and not before.
 *
 * Writing `values` is how ComfyUI's refresh replaces a combo's choices from a definition: here there are none in it, so
 * a write means that they are fetched anew, if anybody has looked at them before.
 * @template {object} T
 * @param {T} options
 * @param {RemoteOptions} cache
 * @param {Remote} remote
 * @param {any[]} [before] shown until the first answer
 * @returns {T}
 */
export function lazyOptions(options, cache, remote, before = []) {
  return new Proxy(options, {
    get: (target, name, receiver) =>
      name === "values" ? (cache.look(remote) ?? before) : Reflect.get(target, name, receiver),
    has: (target, name) => name === "values" || Reflect.has(target, name),
    set: (target, name, value, receiver) => {
      if (name !== "values") return Reflect.set(target, name, value, receiver);
      cache.forceUpdate(remote);
      if (cache.peek(remote)) cache.look(remote);
      return true;
    },
  });
}
