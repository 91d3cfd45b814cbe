// @ts-check
/** Which of a node's widgets can be offered as inputs, and why the others cannot. No DOM. */

import { isGroupNode, targetsOf } from "./marks.js";

/** @typedef {import("./marks.js").GraphNode} GraphNode */
/** @typedef {import("./marks.js").Widget} Widget */

/**
 * A widget as somebody who chooses sees it.
 * @typedef {object} Choice
 * @property {string} name as the API format has it
 * @property {string} label as the canvas shows it
 * @property {any} value
 * @property {string} facts "0 to 100, in steps of 5"; "" where there is nothing to say
 * @property {string} reason why it cannot be chosen; "" if it can
 */

/** @param {GraphNode} node @returns {Choice[]} in the order of the widgets; buttons are left out */
export function choicesOf(node) {
  /** @type {Map<string, Choice>} */
  const found = new Map();
  for (const widget of node.widgets ?? []) {
    // What has no value of its own is no input: buttons, previews.
    if (!widget.name || widget.type === "button" || widget.options?.serialize === false) continue;
    found.set(widget.name, {
      name: widget.name,
      label: widget.label || slotOf(node, widget)?.label || widget.name,
      value: widget.value,
      facts: factsOf(widget),
      reason: reasonAgainst(node, widget),
    });
  }
  return [...found.values()];
}

/** @param {GraphNode} node @param {Widget} widget */
function slotOf(node, widget) {
  return node.inputs?.find((slot) => slot.widget?.name === widget.name);
}

/** @param {GraphNode} node @param {Widget} widget @returns {string} */
function reasonAgainst(node, widget) {
  const { name, value } = widget;
  if (slotOf(node, widget)?.link != null) return "linked to another node: only values can be set from outside";
  if (widget.type?.startsWith("converted-widget")) return "turned into an input slot: turn it back into a widget";
  if (name !== name.trim() || name.includes(",")) return "its name has a comma, or begins or ends with a space";
  if (isGroupNode(node)) return "part of a group node: turn that into a subgraph first";
  if (node.subgraph) {
    const targets = targetsOf(node, name);
    if (!targets.length) return "leads to no input inside of the subgraph";
    if (targets.length > 1) return `feeds ${targets.length} inputs inside of the subgraph: choose one of them there`;
  }
  if (value === null || value === undefined) return "has no value yet";
  if (!["string", "number", "boolean"].includes(typeof value)) return "its value is no text, number or yes/no";
  return "";
}

/** @param {Widget} widget */
function factsOf({ type, value, options = {} }) {
  if (type === "combo" || type === "combobox") {
    const values = typeof options.values === "function" ? null : options.values;
    if (!Array.isArray(values) || !values.length) return "";
    const shown = values.slice(0, 4).map(String).join(", ");
    return values.length > 4 ? `${shown} … (${values.length} choices)` : shown;
  }
  if (typeof value !== "number") return "";
  const { min, max, step2 } = options;
  // Older front ends have ten times the step in `step`.
  const step = typeof step2 === "number" ? step2 : typeof options.step === "number" ? options.step / 10 : 0;
  const parts = [];
  if (isBound(min) && isBound(max)) parts.push(`${min} to ${max}`);
  else if (isBound(min)) parts.push(`from ${min}`);
  else if (isBound(max)) parts.push(`up to ${max}`);
  if (step > 0 && step !== 1) parts.push(`in steps of ${Number(step.toPrecision(6))}`);
  return parts.join(", ");
}

/** A bound that says something to people: 2^64 and the like do not. @param {any} value */
const isBound = (value) => typeof value === "number" && Math.abs(value) < 1e12;
