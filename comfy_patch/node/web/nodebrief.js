// @ts-check
/**
 * V2 as it is sent, without what goes without saying; the same rules as bridged/nodedefs/brief.py.
 *
 * Nothing here throws on any object of JSON, or changes what it was given. No DOM.
 */

/** What follows what, in ComfyUI's own order. @type {Map<string, string>} */
const NEXT = new Map([
  ["output", "name"],
  ["name", "display_name"],
  ["display_name", "description"],
]);

/** @param {string} name @returns {[string, string][]} */
const usual = (name) => [
  ["name", name],
  ["display_name", name],
  ["description", ""],
];

/**
 * What is sent of a class in V2, as toV2 made it.
 * @param {import("./nodeforms.js").Definition} v2
 * @param {string} name the class
 * @returns {import("./nodeforms.js").Definition}
 */
export function brief(v2, name) {
  const absent = usual(name).flatMap(([key]) => (Object.hasOwn(v2, key) ? [] : [key]));
  if (absent.length > 0) return { ...v2, v1: { ...v2.v1, absent: [...(v2.v1?.absent ?? []), ...absent] } };
  const said = new Map(usual(name));
  const small = Object.fromEntries(Object.entries(v2).filter(([key, value]) => said.get(key) !== value));
  return Object.keys(whole(small, name)).join("\n") === Object.keys(v2).join("\n") ? small : v2;
}

/**
 * The inverse, for toV1.
 * @param {import("./nodeforms.js").Definition} v2
 * @param {string} name the class
 * @returns {import("./nodeforms.js").Definition}
 */
export function whole(v2, name) {
  const absent = Array.isArray(v2.v1?.absent) ? v2.v1.absent : [];
  const missing = new Map(usual(name).filter(([key]) => !Object.hasOwn(v2, key) && !absent.includes(key)));
  /** @type {Map<string, any>} */
  const result = new Map();
  for (const [key, value] of Object.entries(v2)) {
    result.set(key, value);
    for (let next = NEXT.get(key); next !== undefined && missing.has(next); next = NEXT.get(next)) {
      result.set(next, missing.get(next));
      missing.delete(next);
    }
  }
  return Object.fromEntries([...result, ...missing]);
}
