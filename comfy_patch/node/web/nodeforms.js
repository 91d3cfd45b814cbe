// @ts-check
/**
 * The two forms of a node definition, either way; the same rules as bridged/nodedefs/forms.py.
 *
 * V1 is what ComfyUI's /object_info says: combos as [[...], {...}] or as ["COMBO", {"options": ...}], outputs as
 * parallel lists. V2 is that of the ComfyUI RFC "API improvements" (2.2): every combo explicit, outputs as one list of
 * objects, inputs in the order of their keys. What V2 cannot say of the V1 it came from stands under "v1", the residue; its keys are listed in forms.py,
 * and tests/data/patch/forms.json has examples that both sides are tested with.
 *
 * Nothing here throws on any JSON, or changes what it was given; results share parts with it. No DOM.
 */

/** @typedef {{[key: string]: any}} Definition A class's entry of /object_info, in either form. */
/** @typedef {{[section: string]: {[input: string]: any}}} Marks */

/**
 * @typedef {object} Remote Where a combo's options are fetched, in the RFC's words.
 * @property {string} route
 * @property {string | null} response_key
 * @property {{[name: string]: any}} query_params
 * @property {number} refresh milliseconds; 0: never after the first
 * @property {string | null} cache_key
 * @property {string | null} invalidation_signal
 * @property {Definition} extra what only ComfyUI's own block says (refresh_button, timeout…)
 */

/**
 * @typedef {object} Combo A combo input in any form.
 * @property {any[] | null} options
 * @property {Remote | null} remote
 * @property {Definition} settings all else: default, tooltip, image_upload…
 */

const NEWER_SCHEMA = ["deprecated", "experimental", "api_node"];
const TOOLTIPS = ["output_tooltips", "output_tooltip"];
const PARALLEL = ["output_is_list", "output_name", "output_tooltips", "output_optional"];
const ORDER = "input_order";
const LISTS = [...new Set([...PARALLEL, ...TOOLTIPS])];
const REMOTE_KEYS = ["route", "response_key", "query_params", "refresh", "cache_key", "invalidation_signal"];

/** @type {{[key: string]: (value: any) => boolean}} */
const RESIDUE = {
  combos: (value) => value === "list" || value === "explicit",
  inputs: (value) => isObject(value) && Object.values(value).every(isObject),
  kept: (value) => value === true,
  absent: isTexts,
  keys: isObject,
  more: (value) => isObject(value) && Object.values(value).every(Array.isArray),
  tooltips: (value) => value === "output_tooltip",
  order: isTexts,
  own: () => true,
};

/**
 * Whether a definition is V2: its outputs are objects and stand alone, or it has a residue.
 * @param {any} definition
 */
export function isV2(definition) {
  if (!isObject(definition)) return false;
  if (residueOf(definition) !== null) return true;
  return areOutputs(definition.output) && !LISTS.some((key) => has(definition, key));
}

/**
 * V2 with inline options, of V1, V2 or a mixture.
 * @param {any} definition
 * @returns {any}
 */
export function toV2(definition) {
  if (!isObject(definition)) return definition;
  const { changed: v2, marks } = explicit(definition);
  const owned = has(v2, "v1");
  const own = v2.v1;
  delete v2.v1;
  if (isV2(definition)) {
    const known = residueOf(definition);
    /** @type {Definition} */
    const residue = known !== null ? { ...known } : owned ? { own } : {};
    const form = residue.combos ?? usualForm(v2);
    // Those that are explicit already stand as they are.
    const added = noted(
      marks.filter(([, , mark]) => mark !== "explicit"),
      form,
    );
    if (added) {
      residue.inputs = { ...residue.inputs };
      for (const section of Object.keys(added)) {
        put(residue.inputs, section, { ...get(residue.inputs, section), ...added[section] });
      }
    }
    if (!has(residue, "kept")) v2.output = v2.output.map(canonical);
    return isEmpty(residue) ? v2 : { ...v2, v1: residue };
  }
  /** @type {Definition} */
  const residue = owned ? { own } : {};
  let form = usualForm(v2);
  const usual = marks.filter(([, , mark]) => (mark === "explicit") === (form === "explicit")).length;
  if (2 * usual < marks.length) residue.combos = form = form === "list" ? "explicit" : "list";
  const others = noted(marks, form);
  if (others) residue.inputs = others;
  const outputs = outputsOf(definition);
  if (outputs === null) {
    residue.kept = true;
  } else {
    v2.output = outputs;
    for (const key of LISTS) delete v2[key];
    Object.assign(residue, unexpected(definition, parallel(outputs, v2, {}), tooltipsKey(definition)));
  }
  const inputs = orderOf(definition);
  if (inputs !== null && !has(definition, ORDER)) residue.absent = [...(residue.absent ?? []), ORDER];
  else if (inputs !== null && JSON.stringify(definition[ORDER]) === JSON.stringify(inputs)) delete v2[ORDER];
  const order = Object.keys(definition);
  if (!same(Object.keys(withLists(v2, residue)), order)) residue.order = order;
  return isEmpty(residue) ? v2 : { ...v2, v1: residue };
}

/**
 * V1, of V2 with inline options or of V1. Combos without options stay ["COMBO", {...}].
 * @param {any} definition
 * @returns {any}
 */
export function toV1(definition) {
  if (!isV2(definition)) return definition;
  const residue = residueOf(definition) ?? {};
  const form = residue.combos ?? usualForm(definition);
  const plain = mapInputs(definition, (section, name, spec) => {
    if (!isExplicit(spec)) return spec;
    const mark = get(get(residue.inputs ?? {}, section) ?? {}, name) ?? form;
    if (mark === "explicit") return spec;
    const { options, ...settings } = spec[1];
    if (isObject(mark)) return [options, mark.settings ?? {}];
    return !isEmpty(settings) || mark === "empty" ? [options, settings] : [options];
  });
  if (isEmpty(residue)) return withLists(plain, residue);
  const { v1: _, ...bare } = plain;
  return withLists(bare, residue);
}

/**
 * What a combo's spec says, in any form; null for other inputs. A remote block without a route is a setting like
 * others.
 * @param {any} spec
 * @returns {Combo | null}
 */
export function readCombo(spec) {
  if (!Array.isArray(spec) || !(spec[0] === "COMBO" || Array.isArray(spec[0]))) return null;
  const settings = isObject(spec[1]) ? { ...spec[1] } : {};
  let listed = spec[0];
  if (spec[0] === "COMBO") {
    listed = settings.options;
    delete settings.options;
  }
  let remote = null;
  const block = settings.remote;
  if (settings.type === "remote" && typeof settings.route === "string") {
    remote = remoteOf(settings, {});
    for (const key of [...REMOTE_KEYS, "type"]) delete settings[key];
  } else if (isObject(block) && typeof block.route === "string") {
    delete settings.remote;
    const extra = Object.fromEntries(Object.entries(block).filter(([key]) => !REMOTE_KEYS.includes(key)));
    remote = remoteOf(block, extra);
  }
  return { options: Array.isArray(listed) ? listed : null, remote, settings };
}

/**
 * Every input with its section, in order; nothing of what is not shaped like inputs.
 * @param {any} definition
 * @returns {[section: string, name: string, spec: any][]}
 */
export function inputsOf(definition) {
  if (!isObject(definition) || !isObject(definition.input)) return [];
  return Object.entries(definition.input).flatMap(([section, inputs]) =>
    isObject(inputs)
      ? Object.entries(inputs).map(([name, spec]) => /** @type {[string, string, any]} */ ([section, name, spec]))
      : [],
  );
}

/** @param {Definition} said @param {Definition} extra @returns {Remote} */
function remoteOf(said, extra) {
  const text = (/** @type {string} */ key) => (typeof said[key] === "string" ? said[key] : null);
  const { refresh } = said;
  return {
    route: said.route,
    response_key: text("response_key"),
    query_params: isObject(said.query_params) ? said.query_params : {},
    refresh: typeof refresh === "number" && Number.isFinite(refresh) && refresh > 0 ? Math.trunc(refresh) : 0,
    cache_key: text("cache_key"),
    invalidation_signal: text("invalidation_signal"),
    extra,
  };
}

// --- inputs ---

/**
 * A copy with every combo explicit, and the mark of each combo that V1 has two forms for.
 * @param {Definition} definition
 * @returns {{changed: Definition, marks: [string, string, any][]}}
 */
function explicit(definition) {
  /** @type {[string, string, any][]} */
  const marks = [];
  const changed = mapInputs(definition, (section, name, spec) => {
    if (isExplicit(spec)) {
      marks.push([section, name, "explicit"]);
      return spec;
    }
    if (!Array.isArray(spec) || !Array.isArray(spec[0]) || spec.length > 2) return spec;
    const settings = spec.length === 2 ? spec[1] : {};
    if (!isObject(settings)) return spec;
    if (has(settings, "options") || settings.type === "remote") {
      marks.push([section, name, { settings }]);
      const { options: _o, type: _t, ...rest } = settings;
      return ["COMBO", { options: spec[0], ...rest }];
    }
    marks.push([section, name, spec.length === 2 && isEmpty(settings) ? "empty" : "list"]);
    return ["COMBO", { options: spec[0], ...settings }];
  });
  return { changed: { ...changed }, marks };
}

/** @param {Definition} definition @param {(section: string, name: string, spec: any) => any} change @returns {Definition} */
function mapInputs(definition, change) {
  let input = definition.input;
  for (const [section, name, spec] of inputsOf(definition)) {
    const now = change(section, name, spec);
    if (now === spec) continue;
    if (input === definition.input) input = { ...input };
    if (input[section] === definition.input[section]) put(input, section, { ...input[section] });
    put(input[section], name, now);
  }
  return input === definition.input ? definition : { ...definition, input };
}

/** Whether it is an explicit combo that could be a list combo as well. @param {any} spec */
function isExplicit(spec) {
  return (
    Array.isArray(spec) &&
    spec.length === 2 &&
    spec[0] === "COMBO" &&
    isObject(spec[1]) &&
    Array.isArray(spec[1].options) &&
    spec[1].type !== "remote"
  );
}

/** @param {Definition} definition */
const isNewer = (definition) => NEWER_SCHEMA.every((key) => has(definition, key));

/** @param {Definition} definition */
const usualForm = (definition) => (isNewer(definition) ? "explicit" : "list");

/**
 * The order of inputs that their keys say; null where that is not certain: not all sections are objects, or a name is
 * a number, which JavaScript's objects put first.
 * @param {Definition} definition
 * @returns {{[section: string]: string[]} | null}
 */
function orderOf({ input }) {
  if (!isObject(input) || !Object.values(input).every(isObject)) return null;
  /** @type {{[section: string]: string[]}} */
  const order = {};
  for (const [section, inputs] of Object.entries(input)) put(order, section, Object.keys(inputs));
  const names = [...Object.keys(order), ...Object.values(order).flat()];
  return names.some((name) => /^\p{Nd}+$/u.test(name)) ? null : order;
}

/** @param {[string, string, any][]} marks @param {any} form @returns {Marks | null} */
function noted(marks, form) {
  /** @type {Marks | null} */
  let found = null;
  for (const [section, name, mark] of marks) {
    if (mark === form) continue;
    found ??= {};
    if (!has(found, section)) put(found, section, {});
    put(found[section], name, mark);
  }
  return found;
}

// --- outputs ---

/**
 * V1's lists as V2's objects, as far as they can be read; null: these outputs are no V1 lists.
 * @param {Definition} definition
 * @returns {Definition[] | null}
 */
function outputsOf(definition) {
  const types = definition.output;
  if (!Array.isArray(types) || (types.length && areOutputs(types))) return null;
  const column = (/** @type {string} */ key, /** @type {string} */ wanted) => {
    const found = Array.isArray(definition[key]) ? definition[key] : [];
    return types.map((_, index) => (typeof found[index] === wanted ? found[index] : null));
  };
  const names = column("output_name", "string");
  const flags = column("output_is_list", "boolean");
  const tooltips = column(tooltipsKey(definition), "string");
  const optionals = column("output_optional", "boolean");
  return types.map((type, index) => {
    // A combo's output type is its options, in V1.
    const shown = Array.isArray(type) ? "COMBO" : type;
    /** @type {Definition} */
    const output = {
      type: shown,
      name: names[index] ?? (typeof shown === "string" ? shown : ""),
      is_list: flags[index] === true,
    };
    if (tooltips[index] !== null) output.tooltip = tooltips[index];
    if (optionals[index] !== null) output.optional = optionals[index];
    if (Array.isArray(type)) output.options = type;
    return output;
  });
}

/** @param {Definition} definition */
const tooltipsKey = (definition) => TOOLTIPS.find((key) => has(definition, key)) ?? TOOLTIPS[0];

/** @param {any} outputs */
const areOutputs = (outputs) => Array.isArray(outputs) && outputs.every((each) => isObject(each) && has(each, "type"));

/** @param {Definition} output @returns {Definition} */
function canonical(output) {
  if (Array.isArray(output.type)) output = { ...output, type: "COMBO", options: output.type };
  if (has(output, "name") && has(output, "is_list")) return output;
  const name = typeof output.type === "string" ? output.type : "";
  return { ...{ type: output.type, name, is_list: false }, ...output };
}

/** The V1 lists of V2's outputs, by key. @param {Definition[]} outputs @param {Definition} v2 @param {Definition} residue */
function parallel(outputs, v2, residue) {
  const said = (/** @type {Definition} */ output, /** @type {string} */ key, /** @type {any} */ other) =>
    has(output, key) ? output[key] : other;
  /** @type {Definition} */
  const lists = {
    output: outputs.map((each) => (each.type === "COMBO" && Array.isArray(each.options) ? each.options : each.type)),
    output_is_list: outputs.map((each) => said(each, "is_list", false)),
    output_name: outputs.map((each) => said(each, "name", each.type)),
  };
  const tooltips = outputs.map((each) => said(each, "tooltip", null));
  if (isNewer(v2) || tooltips.some((each) => each !== null)) lists[residue.tooltips ?? TOOLTIPS[0]] = tooltips;
  if (outputs.some((each) => has(each, "optional"))) {
    lists.output_optional = outputs.map((each) => said(each, "optional", false));
  }
  for (const [key, tail] of Object.entries(residue.more ?? {})) put(lists, key, [...(get(lists, key) ?? []), ...tail]);
  for (const [key, value] of Object.entries(residue.keys ?? {})) put(lists, key, value);
  for (const key of residue.absent ?? []) delete lists[key];
  return lists;
}

/**
 * The residue that turns the expected lists into a V1 definition's own.
 * @param {Definition} definition @param {Definition} expected @param {string} tooltips
 */
function unexpected(definition, expected, tooltips) {
  /** @type {Definition} */
  const residue = {};
  if (tooltips !== TOOLTIPS[0]) {
    residue.tooltips = tooltips;
    if (has(expected, TOOLTIPS[0])) {
      expected[tooltips] = expected[TOOLTIPS[0]];
      delete expected[TOOLTIPS[0]];
    }
  }
  for (const key of LISTS) {
    const ours = expected[key];
    const theirs = definition[key];
    if (!has(definition, key)) {
      if (has(expected, key)) (residue.absent ??= []).push(key);
    } else if (Array.isArray(ours) && Array.isArray(theirs) && same(ours, theirs.slice(0, ours.length))) {
      if (theirs.length > ours.length) (residue.more ??= {})[key] = theirs.slice(ours.length);
    } else {
      (residue.keys ??= {})[key] = theirs;
    }
  }
  return residue;
}

/** V1's top level, in V1's order; the inputs as they are given. @param {Definition} v2 @param {Definition} residue */
function withLists(v2, residue) {
  /** @type {Definition} */
  const result = {};
  /** @type {Definition} */
  let late = {};
  const add = (/** @type {Definition} */ more) =>
    Object.entries(more).forEach(([key, value]) => put(result, key, value));
  for (const [key, value] of Object.entries(v2)) {
    if (key !== "output" || has(residue, "kept") || !Array.isArray(v2.output)) {
      put(result, key, value);
    } else {
      const lists = parallel(v2.output, v2, residue);
      if (!isNewer(v2)) {
        late = Object.fromEntries(TOOLTIPS.filter((name) => has(lists, name)).map((name) => [name, lists[name]]));
        for (const name of TOOLTIPS) delete lists[name];
      }
      add(lists);
    }
    if (key === "output_node") {
      add(late);
      late = {};
    } else if (key === "input" && !has(v2, ORDER) && !(residue.absent ?? []).includes(ORDER)) {
      const order = orderOf(v2);
      if (order !== null) put(result, ORDER, order);
    }
  }
  add(late);
  if (has(residue, "own")) result.v1 = residue.own;
  if (!residue.order) return result;
  const keys = [...new Set([...residue.order, ...Object.keys(result)])];
  return Object.fromEntries(keys.filter((key) => has(result, key)).map((key) => [key, result[key]]));
}

/** What is under "v1", if it is a residue and not something of the node's own. @param {Definition} definition @returns {Definition | null} */
function residueOf(definition) {
  const found = has(definition, "v1") ? definition.v1 : null;
  if (!isObject(found) || isEmpty(found)) return null;
  if (!Object.keys(found).every((key) => has(RESIDUE, key) && RESIDUE[key](found[key]))) return null;
  return has(found, "kept") || areOutputs(definition.output) ? found : null;
}

// --- JSON ---

/** @param {any} value @returns {value is Definition} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {any} value */
function isTexts(value) {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}

/** @param {object} value */
const isEmpty = (value) => Object.keys(value).length === 0;

/** @param {object} value @param {string} key */
const has = (value, key) => Object.hasOwn(value, key);

/** @param {Definition} value @param {string} key */
const get = (value, key) => (has(value, key) ? value[key] : undefined);

/** Sets a key of any name: "__proto__", too. @param {Definition} object @param {string} key @param {any} value */
function put(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Equality as JSON has it. @param {any} left @param {any} right @returns {boolean} */
function same(left, right) {
  if (Array.isArray(left)) {
    return (
      Array.isArray(right) && left.length === right.length && left.every((each, index) => same(each, right[index]))
    );
  }
  if (!isObject(left)) return left === right;
  if (!isObject(right)) return false;
  const keys = Object.keys(left);
  return (
    keys.length === Object.keys(right).length && keys.every((key) => has(right, key) && same(left[key], right[key]))
  );
}
