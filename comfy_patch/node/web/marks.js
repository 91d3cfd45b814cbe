// @ts-check
/**
 * Which inputs of a workflow are offered by the bridge: how a node keeps its marks, and how they get into the API format.
 *
 * A node keeps three properties, all plain text, so that they can be edited in the properties panel: the names of the
 * widgets, their description pictures as "name=file" pairs, and a title of its own. In the API format they become
 * `_meta.apiinput` ("seed,steps"), `_meta.descimage` (one file name, or a list with one for each name) and
 * `_meta.title`. No DOM; nodes and graphs are only what is described here.
 */

export const INPUTS = "API input";
export const PICTURES = "API picture";
export const TITLE = "API title";

/** Deeper than any graph of subgraphs that somebody made by hand. */
const MAX_DEPTH = 30;

/**
 * @typedef {object} Widget
 * @property {string} name
 * @property {string} [label] what is shown in place of the name, after a rename
 * @property {string} [type]
 * @property {any} [value]
 * @property {any} [options] serialize, min, max, step2, step, values
 * @property {number} [last_y] of its row, in the node's coordinates
 * @property {number} [computedHeight]
 * @property {boolean} [hidden]
 */

/**
 * @typedef {object} Slot
 * @property {string} name
 * @property {string} [label]
 * @property {number | string | null} [link]
 * @property {{name: string}} [widget] the widget that this slot stands for
 * @property {any[]} [linkIds] of a subgraph's own inputs
 */

/**
 * @typedef {object} GraphNode
 * @property {number | string} id
 * @property {string} [title]
 * @property {string} [type]
 * @property {string} [comfyClass]
 * @property {{[name: string]: any}} properties
 * @property {Widget[]} [widgets]
 * @property {Slot[]} [inputs]
 * @property {Graph & {inputs?: Slot[], inputNode?: {slots: Slot[]}}} [subgraph] what is inside, for a subgraph's node
 * @property {Function} [getInnerNodes] only nodes that stand for others have it: group nodes, subgraphs
 */

/**
 * @typedef {object} Graph
 * @property {GraphNode[]} nodes
 * @property {(id: any) => GraphNode | null | undefined} getNodeById
 * @property {(id: any) => any} [getLink]
 * @property {any} [links]
 * @property {any} [extra]
 */

/** @typedef {{class_type?: string, inputs: {[name: string]: any}, _meta?: {[name: string]: any}}} ApiNode */
/** @typedef {{names: string[], pictures: Map<string, string>, title: string}} Marks */

// --- the properties ---

/** @param {any} text @returns {string[]} */
export function parseNames(text) {
  if (typeof text !== "string") return [];
  return [
    ...new Set(
      text
        .split(",")
        .map((name) => name.trim())
        .filter(Boolean),
    ),
  ];
}

/** @param {any} text "seed=glow.png, steps=mix.png" @returns {Map<string, string>} */
export function parsePictures(text) {
  /** @type {Map<string, string>} */
  const pictures = new Map();
  for (const pair of parseNames(text)) {
    const cut = pair.lastIndexOf("="); // a name may have one, a file of ours never
    if (cut > 0 && cut < pair.length - 1) pictures.set(pair.slice(0, cut).trim(), pair.slice(cut + 1).trim());
  }
  return pictures;
}

/** @param {GraphNode} node @returns {Marks} */
export function marksOf(node) {
  const { [INPUTS]: names, [PICTURES]: pictures, [TITLE]: title } = node.properties ?? {};
  return {
    names: parseNames(names),
    pictures: parsePictures(pictures),
    title: typeof title === "string" ? title.trim() : "",
  };
}

/**
 * The same marks as properties; pictures of inputs that are not marked are left out.
 * @param {Marks} marks
 * @returns {{[property: string]: string}}
 */
export function asProperties({ names, pictures, title }) {
  const pairs = names.filter((name) => pictures.get(name)).map((name) => `${name}=${pictures.get(name)}`);
  return { [INPUTS]: names.join(", "), [PICTURES]: pairs.join(", "), [TITLE]: title.trim() };
}

/**
 * A name for a description picture that is fine on every system: short, plain, with the ending given.
 * @param {string} name as the file was called @param {string} ending "png"
 * @param {Iterable<string>} taken
 */
export function pictureName(name, ending, taken = []) {
  const stem = name
    .replace(/\.[^.]*$/, "")
    .normalize("NFKD")
    .replace(/[^A-Za-z0-9_-]+/g, "-");
  const base = stem.replace(/^[-_]+|[-_]+$/g, "").slice(0, 40) || "picture";
  const names = new Set(taken);
  let found = `${base}.${ending}`;
  for (let number = 2; names.has(found); number++) found = `${base}-${number}.${ending}`;
  return found;
}

// --- subgraphs ---

/**
 * Which inner inputs a widget of a subgraph's node stands for, as paths of ids from that node on.
 * @param {GraphNode} node @param {string} name
 * @param {number} [depth]
 * @returns {{path: string[], name: string}[]}
 */
export function targetsOf(node, name, depth = 0) {
  const inside = node.subgraph;
  if (!inside || depth > MAX_DEPTH) return [];
  const slots = inside.inputNode?.slots ?? inside.inputs ?? [];
  const slot = slots.find((each) => each.name === name);
  /** @type {{id: any, name: string}[]} */
  const found = [];
  for (const id of slot?.linkIds ?? []) {
    const link = inside.getLink?.(id) ?? inside.links?.get?.(id) ?? inside.links?.[id];
    const input = link && inside.getNodeById(link.target_id)?.inputs?.[link.target_slot];
    if (input) found.push({ id: link.target_id, name: input.name });
  }
  if (!slot) {
    // Some front ends of 2025 show inner widgets outside without a link.
    const widget = /** @type {any} */ (node.widgets?.find((each) => each.name === name));
    const id = widget?._overlay?.nodeId ?? widget?.sourceNodeId;
    const inner = widget?._overlay?.widgetName ?? widget?.sourceWidgetName;
    if (id !== undefined && typeof inner === "string") found.push({ id, name: inner });
  }
  return found.flatMap(({ id, name: input }) => {
    const inner = inside.getNodeById(id);
    if (!inner) return [];
    if (!inner.subgraph) return [{ path: [String(id)], name: input }];
    return targetsOf(inner, input, depth + 1).map((each) => ({ ...each, path: [String(id), ...each.path] }));
  });
}

/**
 * All marks of a graph, by the ids that the API format has: "12:3" is node 3 inside of subgraph node 12.
 * @param {Graph} graph
 * @returns {{marks: Map<string, Marks>, notes: string[]}} notes: marks that lead nowhere
 */
export function collect(graph) {
  /** @type {Map<string, Marks>} */
  const marks = new Map();
  /** @type {string[]} */
  const notes = [];
  const add = (/** @type {string} */ id, /** @type {Marks} */ more) => {
    const old = marks.get(id);
    marks.set(id, {
      names: [...new Set([...(old?.names ?? []), ...more.names])],
      pictures: new Map([...(old?.pictures ?? []), ...more.pictures]),
      title: old?.title || more.title,
    });
  };
  const walk = (/** @type {Graph} */ inside, /** @type {string[]} */ above) => {
    for (const node of inside.nodes) {
      const own = marksOf(node);
      const path = [...above, String(node.id)];
      if (node.subgraph && above.length < MAX_DEPTH) walk(node.subgraph, path); // its own come first
      if (!own.names.length && !own.title) continue;
      if (!node.subgraph) {
        if (isGroupNode(node)) notes.push(`${path.join(":")}: a group node's inputs cannot be offered`);
        else add(path.join(":"), own);
        continue;
      }
      for (const name of own.names) {
        const targets = targetsOf(node, name);
        if (targets.length !== 1) {
          notes.push(`${path.join(":")}/${name}: leads to ${targets.length} inputs of the subgraph instead of one`);
          continue;
        }
        const picture = own.pictures.get(name);
        add([...path, ...targets[0].path].join(":"), {
          names: [targets[0].name],
          pictures: new Map(picture ? [[targets[0].name, picture]] : []),
          title: own.title,
        });
      }
    }
  };
  walk(graph, []);
  return { marks, notes };
}

/** Whether it is an older front end's group node: it stands for nodes that have no marks of their own. @param {GraphNode} node */
export function isGroupNode(node) {
  return !node.subgraph && typeof node.getInnerNodes === "function";
}

// --- the API format ---

/** What the nodes said of themselves before `mark`, to give it back. @type {WeakMap<object, any>} */
const plain = new WeakMap();

/**
 * Writes the marks into an API-format graph, in place: each node concerned gets a `_meta` of its own.
 * @param {{[id: string]: ApiNode}} output
 * @param {Graph} graph it was made from
 * @returns {string[]} what was marked and is left out, one line each
 */
export function mark(output, graph) {
  const { marks, notes } = collect(graph);
  for (const [id, { names, pictures, title }] of marks) {
    const node = Object.hasOwn(output, id) ? output[id] : null;
    if (!node?.inputs) {
      if (names.length) notes.push(`${id}: the node is not part of what runs (muted or bypassed)`);
      continue;
    }
    const fit = names.filter((name) => {
      const problem = problemOf(node, name);
      if (problem) notes.push(`${id}/${name}: ${problem}`);
      return !problem;
    });
    if (!fit.length && !title) continue;
    const meta = { ...node._meta };
    if (title) meta.title = title;
    if (fit.length) meta.apiinput = fit.join(",");
    const files = fit.map((name) => pictures.get(name) ?? "");
    if (files.some(Boolean)) meta.descimage = files.every((file) => file === files[0]) ? files[0] : files;
    plain.set(meta, node._meta);
    node._meta = meta;
  }
  return notes;
}

/** @param {ApiNode} node @param {string} name @returns {string} */
function problemOf(node, name) {
  if (!Object.hasOwn(node.inputs, name)) return `${node.class_type ?? "the node"} has no such input`;
  const value = node.inputs[name];
  if (Array.isArray(value)) return "linked to another node";
  return ["string", "number", "boolean"].includes(typeof value) ? "" : "its value is no text, number or yes/no";
}

/**
 * Takes the marks out again, in place: what ComfyUI queues is what it would have queued without us.
 * @param {any} output
 */
export function unmark(output) {
  for (const node of Object.values(output ?? {})) {
    const meta = node?._meta;
    if (!meta) continue;
    if (plain.has(meta)) node._meta = plain.get(meta);
    else if ("apiinput" in meta || "descimage" in meta) {
      const { apiinput: _a, descimage: _d, ...rest } = meta; // a copy that another extension made
      node._meta = rest;
    }
  }
}

/** Every input that an API-format graph offers: "12:3/seed". @param {{[id: string]: ApiNode}} output */
export function offered(output) {
  return Object.entries(output).flatMap(([id, node]) =>
    parseNames(node._meta?.apiinput).map((name) => `${id}/${name}`),
  );
}

/** The description pictures that an API-format graph names. @param {{[id: string]: ApiNode}} output @returns {string[]} */
export function picturesNamed(output) {
  return [
    ...new Set(
      Object.values(output)
        .flatMap((node) => [node._meta?.descimage ?? []].flat())
        .filter(Boolean),
    ),
  ];
}
