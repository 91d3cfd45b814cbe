// @ts-check
/** Choosing a node's API inputs: the dialog, the property beside it, and the marks on the canvas. */

import { choicesOf } from "./choices.js";
import { element, field, openDialog, resultPlace, uniqueId } from "./dialog.js";
import { asProperties, INPUTS, marksOf, parseNames, pictureName, PICTURES, TITLE } from "./marks.js";
import { descriptionPicture } from "./pictures.js";

/** @typedef {import("./choices.js").Choice} Choice */
/** @typedef {import("./marks.js").Graph} Graph */
/** @typedef {import("./marks.js").GraphNode} GraphNode */
/** @typedef {{[name: string]: string}} Pictures data URLs by file name */

const COLOUR = "#f5a623";

// --- pictures, kept with the workflow ---

/**
 * A workflow may be anybody's: only pictures that are in it are taken, no addresses to fetch from.
 * @param {Graph} graph the root @returns {Pictures}
 */
export function picturesOf(graph) {
  const found = Object.entries(graph.extra?.bridged?.pictures ?? {});
  return Object.fromEntries(
    found.filter(([, url]) => typeof url === "string" && /^data:image\/(png|jpeg|webp);base64,/.test(url)),
  );
}

/**
 * Keeps those that some node still names.
 * @param {Graph} graph the root @param {Pictures} pictures
 */
export function keepPictures(graph, pictures) {
  /** @type {Set<string>} */
  const used = new Set();
  const seen = new Set();
  const walk = (/** @type {Graph} */ inside) => {
    if (seen.has(inside)) return; // one subgraph may stand in many places
    seen.add(inside);
    for (const node of inside.nodes) {
      for (const file of marksOf(node).pictures.values()) used.add(file);
      if (node.subgraph) walk(node.subgraph);
    }
  };
  walk(graph);
  const kept = Object.fromEntries(Object.entries(pictures).filter(([name]) => used.has(name)));
  const { pictures: _, ...others } = graph.extra?.bridged ?? {};
  const ours = Object.keys(kept).length ? { ...others, pictures: kept } : others;
  if (Object.keys(ours).length) graph.extra = { ...graph.extra, bridged: ours };
  else if (graph.extra) delete graph.extra.bridged;
}

// --- on the canvas ---

/**
 * Gives a node the property and the marks. The property is there on every node with widgets, so that the properties
 * panel shows it, but an empty one is not saved.
 * @param {GraphNode} created
 * @param {(node: GraphNode, names: string[]) => void} [badge] shows the marks where nothing is drawn on a canvas
 */
export function equip(created, badge = () => {}) {
  const node = /** @type {any} */ (created);
  node.properties ??= {};
  if (node.widgets?.length) node.properties[INPUTS] ??= "";
  let text = "";
  /** @type {Set<string>} */
  let names = new Set();
  const current = () => {
    const now = node.properties?.[INPUTS];
    if (now === text) return names;
    text = now;
    names = new Set(parseNames(now));
    return names;
  };
  const { onDrawForeground, onSerialize, onPropertyChanged, onConfigure } = node;
  node.onDrawForeground = function (/** @type {any[]} */ ...args) {
    const result = onDrawForeground?.apply(this, args);
    if (this.properties?.[INPUTS] && !this.flags?.collapsed) drawMarks(args[0], this, current());
    return result;
  };
  node.onSerialize = function (/** @type {any[]} */ ...args) {
    const result = onSerialize?.apply(this, args);
    const { properties } = args[0] ?? {};
    for (const name of [INPUTS, PICTURES, TITLE]) if (properties?.[name] === "") delete properties[name];
    return result;
  };
  node.onPropertyChanged = function (/** @type {any[]} */ ...args) {
    const result = onPropertyChanged?.apply(this, args);
    if (args[0] === INPUTS) {
      badge(this, [...current()]);
      this.setDirtyCanvas?.(true, true);
    }
    return result;
  };
  node.onConfigure = function (/** @type {any[]} */ ...args) {
    const result = onConfigure?.apply(this, args);
    if (this.widgets?.length) this.properties[INPUTS] ??= ""; // a subgraph's node has its widgets only now
    return result;
  };
}

/** @param {CanvasRenderingContext2D} context @param {any} node @param {Set<string>} names */
function drawMarks(context, node, names) {
  const x = node.size[0] - 7.5; // in the margin right of the widgets
  context.fillStyle = COLOUR;
  for (const widget of node.widgets ?? []) {
    if (!names.has(widget.name) || widget.hidden) continue;
    const y = widget.last_y ?? widget.y;
    if (typeof y !== "number") continue;
    context.beginPath();
    context.moveTo(x, y + 4);
    context.lineTo(x + 5, y + 10);
    context.lineTo(x, y + 16);
    context.lineTo(x - 5, y + 10);
    context.fill();
  }
}

// --- the dialog ---

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {HTMLInputElement} box
 * @property {string} picture its file name, "" without one
 */

/**
 * @param {GraphNode} node
 * @param {Graph} graph the root, which keeps the pictures
 * @param {() => void} changed called after the node was
 */
export function openInputs(node, graph, changed) {
  const marks = marksOf(node);
  /** @type {Pictures} */
  const pictures = { ...picturesOf(graph) };
  const choices = choicesOf(node);
  const known = new Set(choices.map((choice) => choice.name));
  for (const name of marks.names.filter((each) => !known.has(each))) {
    choices.push({ name, label: name, value: undefined, facts: "", reason: "the node has no such widget any more" });
  }
  const result = resultPlace();
  const title = element("input", { type: "text", value: marks.title, placeholder: node.title ?? "", maxlength: 200 });
  /** @type {Row[]} */
  const rows = [];
  const list = element("ul", { class: "bridged-rows" });
  for (const choice of choices) {
    const { row, item } = rowOf(choice, marks, pictures, result);
    rows.push(row);
    list.append(item);
  }
  const save = (/** @type {() => void} */ close) => {
    const names = rows.filter(({ box }) => box.checked).map(({ name }) => name);
    // The order that was there stays: callers see it.
    names.sort((left, right) => order(marks.names, left) - order(marks.names, right));
    const pairs = rows.map(({ name, picture }) => /** @type {[string, string]} */ ([name, picture]));
    setProperties(node, asProperties({ names, pictures: new Map(pairs), title: title.value }));
    keepPictures(graph, pictures);
    changed();
    close();
  };
  return openDialog({
    title: `API inputs: ${node.title || node.type} (node ${node.id})`,
    body: [
      element(
        "p",
        { class: "bridged-hint" },
        choices.length
          ? "What is ticked can be set by callers of the bridge. All else of the workflow stays as it is."
          : "This node has no values that could be set.",
      ),
      choices.length ? list : null,
      choices.length ? field("Title for callers", title, "Empty: the node's own title") : null,
    ],
    result,
    buttons: choices.length ? [{ text: "Cancel" }, { text: "Save", main: true, action: save }] : [{ text: "Close" }],
    opened: () => rows.find(({ box }) => !box.disabled)?.box.focus(),
  });
}

/** @param {string[]} names @param {string} name */
const order = (names, name) => (names.includes(name) ? names.indexOf(name) : names.length);

/** @param {GraphNode} target @param {{[name: string]: string}} values */
function setProperties(target, values) {
  const node = /** @type {any} */ (target);
  for (const [name, value] of Object.entries(values)) {
    const before = node.properties[name];
    if (value || name === INPUTS) node.properties[name] = value;
    else delete node.properties[name];
    if ((before ?? "") !== value) node.onPropertyChanged?.(name, value, before);
  }
}

/**
 * @param {Choice} choice
 * @param {import("./marks.js").Marks} marks
 * @param {Pictures} pictures chosen ones are added
 * @param {ReturnType<typeof resultPlace>} result
 */
function rowOf(choice, marks, pictures, result) {
  const id = uniqueId();
  const ticked = marks.names.includes(choice.name);
  const box = element("input", {
    type: "checkbox",
    id,
    checked: ticked,
    disabled: choice.reason !== "" && !ticked, // what is marked can always be unmarked
    "aria-describedby": `${id}-facts`,
  });
  /** @type {Row} */
  const row = { name: choice.name, box, picture: marks.pictures.get(choice.name) ?? "" };
  const shown = choice.value === undefined ? "" : `now: ${brief(choice.value)}`;
  const facts = choice.reason || [choice.facts, shown].filter(Boolean).join(" · ");
  const item = element(
    "li",
    { class: `bridged-row${choice.reason ? " bridged-off" : ""}` },
    box,
    element(
      "label",
      { for: id },
      choice.label,
      choice.label === choice.name ? null : element("code", {}, `  ${choice.name}`),
    ),
    element("span", { class: "bridged-hint", id: `${id}-facts` }, facts),
    choice.reason ? null : pictureOf(row, choice, pictures, result),
  );
  return { row, item };
}

/** @param {any} value */
function brief(value) {
  const text = String(value).replace(/\s+/g, " ");
  return text.length > 60 ? `${text.slice(0, 60)}…` : text || "(empty)";
}

/** @param {Row} row @param {Choice} choice @param {Pictures} pictures @param {ReturnType<typeof resultPlace>} result */
function pictureOf(row, choice, pictures, result) {
  const place = element("span", { class: "bridged-picture" });
  const file = element("input", {
    type: "file",
    accept: "image/*",
    "aria-label": `Description picture of ${choice.label}`,
  });
  const pick = element("label", { class: "bridged-file" }, "Picture…", file);
  const preview = element("img", { alt: "" });
  const remove = element("button", { type: "button", "aria-label": `Remove the picture of ${choice.label}` }, "✕");
  const show = () => {
    file.disabled = !row.box.checked;
    pick.hidden = row.picture !== "" || !row.box.checked;
    const url = pictures[row.picture];
    preview.hidden = !url;
    if (url) preview.src = url;
    preview.title = row.picture;
    remove.hidden = row.picture === "";
  };
  file.addEventListener("change", async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    try {
      const { url, ending } = await descriptionPicture(chosen);
      row.picture = pictureName(chosen.name, ending, Object.keys(pictures));
      pictures[row.picture] = url;
      result.clear();
    } catch {
      result.say(false, `${chosen.name} is no picture that this browser can read; take a PNG or JPEG.`);
    }
    file.value = "";
    show();
  });
  remove.addEventListener("click", () => {
    row.picture = "";
    show();
    file.focus();
  });
  row.box.addEventListener("change", show);
  place.append(pick, preview, remove);
  show();
  return place;
}
