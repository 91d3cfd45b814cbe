// @ts-check
/**
 * The RFC's forms in a front end that does not know them: definitions in V2 become V1, and combos of `type: "remote"`
 * fetch their choices. ComfyUI's own `remote: {…}` blocks are left to its own front end.
 */

import { cacheKey, inputsOf, isV2, lazyOptions, readCombo, RemoteOptions, toV1 } from "./remotecombo.js";

/** @typedef {import("./remotecombo.js").Remote} Remote */

/**
 * What is needed of ComfyUI's front end.
 * @typedef {object} Front
 * @property {(route: string) => string} routeAddress
 * @property {(event: string, action: (detail: any) => void) => void} on
 * @property {() => void} redraw
 */

/** ms; an address that answers later is as good as away */
const TIMEOUT = 10_000;

/** @type {RemoteOptions | null} */
let cache = null;

/** Widgets without a value yet, and how they take one once their choices are there. @type {Set<{key: string, take: () => void}>} */
const waiting = new Set();

/** @type {Set<string>} */
const heard = new Set();

/** Where a definition keeps what its remote combo said: a front end takes `type` for the input's own. */
const KEPT = "bridged_remote";

/**
 * In place, as extensions may: V2 becomes V1, and remote combos become combos without choices. What was adopted
 * already stays as it is.
 * @param {{[key: string]: any}} definition
 */
export function adoptDefinition(definition) {
  if (isV2(definition)) {
    const v1 = toV1(definition);
    for (const key of Object.keys(definition)) if (!Object.hasOwn(v1, key)) delete definition[key];
    Object.assign(definition, v1);
  }
  for (const [section, input, spec] of inputsOf(definition)) {
    const combo = spec?.[1]?.type === "remote" ? readCombo(spec) : null;
    if (!combo?.remote) continue;
    const settings = { options: combo.options ?? [], ...combo.settings, [KEPT]: combo.remote };
    definition.input[section][input] = ["COMBO", settings];
  }
}

/** @param {any} node just created @param {Front} front */
export function equipRemote(node, front) {
  for (const [, name, spec] of inputsOf(node.constructor?.nodeData)) {
    /** @type {Remote | undefined} */
    const remote = spec?.[1]?.[KEPT];
    const widget = remote && node.widgets?.find((/** @type {any} */ each) => each.name === name);
    if (!remote || !widget) continue;
    const options = theCache(front);
    widget.options = lazyOptions(widget.options ?? {}, options, remote, spec[1].options);
    widget.refresh = () => {
      options.forceUpdate(remote);
      options.look(remote);
    };
    listen(remote, front);
    // A new node has no choice yet: it takes the first one. A loaded one has its own by then, and keeps it.
    const entry = {
      key: cacheKey(remote),
      take: () => {
        const first = options.peek(remote)?.[0];
        const isUnset = widget.value === undefined || widget.value === null || widget.value === "";
        if (isUnset && first !== undefined) widget.value = spec[1].default ?? first;
        if (!isUnset || first !== undefined) waiting.delete(entry);
      },
    };
    waiting.add(entry);
    entry.take();
    const { onRemoved } = node;
    node.onRemoved = function (/** @type {any[]} */ ...args) {
      waiting.delete(entry);
      return onRemoved?.apply(this, args);
    };
  }
}

/** @param {Front} front */
function theCache(front) {
  cache ??= new RemoteOptions({
    fetch: async (address, signal) => {
      const response = await fetch(front.routeAddress(address), {
        signal: AbortSignal.any ? AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]) : signal,
      });
      if (!response.ok) throw new Error(`${address}: status ${response.status}`);
      return response.json();
    },
    changed: (key) => {
      for (const entry of [...waiting]) if (entry.key === key) entry.take();
      front.redraw();
    },
  });
  return cache;
}

/** @param {Remote} remote @param {Front} front */
function listen({ invalidation_signal: signal }, front) {
  if (!signal || heard.has(signal)) return;
  heard.add(signal);
  front.on(signal, () => cache?.invalidate(signal));
}
