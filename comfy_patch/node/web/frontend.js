// @ts-check
/**
 * Every interface of ComfyUI's front end that this extension uses, in one place. When a release moves one, look here.
 *
 * Each use is tested for first. A missing one is logged once and left out, or its older form is taken:
 *
 *   registerExtension: commands, menuCommands, settings    an older one ignores what it does not know
 *   getNodeMenuItems, getCanvasMenuItems    not in 1.27; there LGraphCanvas.prototype.get…MenuOptions are wrapped
 *   app.graphToPrompt                       wrapped, so that Export (API) has the marks
 *   api.queuePrompt                         wrapped, so that what is queued has not
 *   app.extensionManager.toast              else a line in the corner
 *   app.menu.settingsGroup                  else, or where that menu is off, a floating button
 *   app.rootGraph                           not in 1.27; there app.graph is the root
 *   app.canvas: selectedItems, ds, draw; changeTracker.captureCanvasState, in 1.27 checkState
 *   of nodes: nodeCreated, onSerialize, onConfigure, onPropertyChanged, onDrawForeground
 *   node.badges, LGraphBadge                where nodes are no canvas drawings ("Nodes 2.0")
 *   of definitions: addCustomNodeDefs, beforeRegisterNodeDef, node.constructor.nodeData
 *
 * Tried with comfyui-frontend-package 1.12.14, 1.27.10 (of ComfyUI 0.3.64) and 1.58.1.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** @typedef {import("./marks.js").Graph} Graph */
/** @typedef {import("./marks.js").GraphNode} GraphNode */
/** @typedef {{content: string, callback: () => void}} MenuItem */
/** @typedef {"success" | "info" | "warn" | "error"} Severity */

/** @type {Set<string>} */
const told = new Set();

/** Logs what is missing, once. @param {string} what @param {unknown} [error] */
export function missing(what, error) {
  if (told.has(what)) return;
  told.add(what);
  console.info(`[bridged] ${what}`, ...(error === undefined ? [] : [error]));
}

/**
 * Runs what an owner's other extensions or a new release may break: it is logged, and theirs goes on.
 * @template T
 * @param {string} what @param {() => T} action
 * @returns {T | undefined}
 */
export function guarded(what, action) {
  try {
    return action();
  } catch (error) {
    missing(`${what} failed; it is left out`, error);
    return undefined;
  }
}

/** @param {{[key: string]: any}} extension */
export function register(extension) {
  app.registerExtension(extension);
}

// --- graphs and nodes ---

/** @returns {Graph} */
export function rootGraph() {
  const graph = app.rootGraph ?? app.graph;
  return graph?.rootGraph ?? graph;
}

/** @returns {GraphNode[]} */
export function selectedNodes() {
  const selected = app.canvas?.selectedItems;
  const items = selected ? [...selected] : Object.values(app.canvas?.selected_nodes ?? {});
  return items.filter((each) => each?.properties && typeof each.getTitle === "function");
}

/** Tells ComfyUI that we changed the workflow: it is drawn anew, and counts as not saved. */
export function changed() {
  redraw();
  guarded("the change tracker", () => {
    const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
    // checkState until it was renamed; before there was a tracker, nothing had to be told.
    (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
  });
}

export function redraw() {
  app.canvas?.setDirty?.(true, true);
}

/** @type {WeakMap<object, any>} */
const badges = new WeakMap();

/**
 * Shows a node's marks as a badge where nodes are elements of the page, on which nothing can be drawn.
 * @param {any} node @param {string[]} names
 */
export function badge(node, names) {
  const Badge = window.LGraphBadge;
  if (typeof Badge !== "function" || !Array.isArray(node.badges)) return;
  const old = badges.get(node);
  if (old) node.badges = node.badges.filter((/** @type {any} */ each) => each !== old);
  badges.delete(node);
  if (!names.length || window.LiteGraph?.vueNodesMode !== true) return;
  const made = new Badge({ text: `API: ${names.join(", ")}`, fgColor: "#1b1b1b", bgColor: "#f5a623" });
  badges.set(node, made);
  node.badges = [...node.badges, made];
}

/** The open workflow's name without folder and ending, "" if it has none. @returns {string} */
export function workflowName() {
  const workflow = app.extensionManager?.workflow?.activeWorkflow;
  return workflow?.isTemporary ? "" : String(workflow?.filename ?? "").replace(/\.(app\.)?json$/, "");
}

/**
 * Entries in the menu of every node, or of the empty canvas.
 * @param {"Node" | "Canvas"} place
 * @param {(node: GraphNode) => MenuItem[]} items
 * @returns {{[hook: string]: any}} what the extension must have for it
 */
export function menu(place, items) {
  if (typeof app[`collect${place}MenuItems`] === "function") return { [`get${place}MenuItems`]: items };
  const prototype = (window.LGraphCanvas ?? app.canvas?.constructor)?.prototype;
  const method = `get${place}MenuOptions`;
  const original = prototype?.[method];
  if (typeof original !== "function") {
    missing(`this front end's menu of the ${place.toLowerCase()} cannot be added to; use the commands instead`);
    return {};
  }
  prototype[method] = function (/** @type {any[]} */ ...args) {
    const options = original.apply(this, args);
    guarded("a menu", () => options.push(null, ...items(args[0])));
    return options;
  };
  return {};
}

// --- the API format ---

/**
 * Has every export of the API format pass `mark`, and everything queued pass `unmark`.
 * @param {(output: any, graph: Graph) => void} mark @param {(output: any) => void} unmark
 */
export function markExports(mark, unmark) {
  const { graphToPrompt } = app;
  const { queuePrompt } = api;
  if (typeof graphToPrompt !== "function" || typeof queuePrompt !== "function") {
    missing("app.graphToPrompt or api.queuePrompt is gone: Export (API) has no marks");
    return;
  }
  app.graphToPrompt = async function (/** @type {any[]} */ ...args) {
    const result = await graphToPrompt.apply(this, args);
    guarded("marking the export", () => mark(result.output, args[0] ?? rootGraph()));
    return result;
  };
  api.queuePrompt = function (/** @type {any[]} */ ...args) {
    guarded("unmarking what is queued", () => unmark(args[1]?.output));
    return queuePrompt.apply(this, args);
  };
}

/** The graph in API format, with its marks. @returns {Promise<{[id: string]: any}>} */
export async function exportGraph() {
  const { output } = await app.graphToPrompt();
  return output;
}

// --- pictures ---

/**
 * The part of the canvas that has nodes in it, as its owner sees it now; null where none is in view.
 * @returns {HTMLCanvasElement | null}
 */
export function graphShot() {
  const canvas = app.canvas?.canvas;
  const { ds } = app.canvas ?? {};
  if (!(canvas instanceof HTMLCanvasElement) || !ds) return null;
  app.canvas.draw?.(true, true);
  const density = canvas.width / (canvas.getBoundingClientRect().width || canvas.width);
  const [dx, dy] = ds.offset;
  const margin = 20;
  const title = 30; // above `pos`
  const edges = (app.canvas.graph?.nodes ?? []).map((/** @type {any} */ { pos, size }) => [
    pos[0] - margin,
    pos[1] - title - margin,
    pos[0] + size[0] + margin,
    pos[1] + size[1] + margin,
  ]);
  const edge = (
    /** @type {number} */ index,
    /** @type {number} */ shift,
    /** @type {number} */ limit,
    /** @type {"min" | "max"} */ outer,
  ) => {
    const value = Math[outer](...edges.map((/** @type {number[]} */ each) => each[index]));
    return Math.round(Math.min(Math.max((value + shift) * ds.scale * density, 0), limit));
  };
  const [left, top] = [edge(0, dx, canvas.width, "min"), edge(1, dy, canvas.height, "min")];
  const [right, bottom] = [edge(2, dx, canvas.width, "max"), edge(3, dy, canvas.height, "max")];
  if (!edges.length || right <= left || bottom <= top) return null;
  const shot = document.createElement("canvas");
  shot.width = right - left;
  shot.height = bottom - top;
  shot.getContext("2d")?.drawImage(canvas, -left, -top);
  return shot;
}

/** @type {string | null} */
let lastOutput = null;

/** Remembers the last picture that was made, for a thumbnail. */
export function followOutputs() {
  on("executed", (detail) => {
    const image = detail?.output?.images?.at?.(-1);
    if (image?.filename) lastOutput = api.apiURL(`/view?${new URLSearchParams(image)}`);
  });
}

/** The address of the last picture that was made or is shown in a node, null without one. @returns {string | null} */
export function outputPicture() {
  if (lastOutput) return lastOutput;
  const shown = rootGraph()
    .nodes.flatMap((node) => /** @type {any} */ (node).imgs ?? [])
    .at(-1);
  return shown instanceof HTMLImageElement && shown.src ? shown.src : null;
}

// --- the server ---

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
export function fetchApi(path, options) {
  return api.fetchApi(path, options);
}

/** The full address of a route of this ComfyUI; whole addresses stay. @param {string} route @returns {string} */
export function routeAddress(route) {
  if (!route.startsWith("/") || route.startsWith("//")) return route;
  return typeof api.fileURL === "function" ? api.fileURL(route) : route;
}

/** @param {string} event of the server's WebSocket @param {(detail: any) => void} action */
export function on(event, action) {
  api.addEventListener(event, (/** @type {CustomEvent} */ { detail }) => guarded(event, () => action(detail)));
}

// --- what people see ---

/** @param {Severity} severity @param {string} summary @param {string} [detail] */
export function toast(severity, summary, detail = "") {
  const { toast: host } = app.extensionManager ?? {};
  if (typeof host?.add === "function") {
    host.add({ severity, summary, detail, life: severity === "error" ? 15_000 : 6_000 });
    return;
  }
  missing("no toasts in this front end; a line in the corner is shown instead");
  const line = document.createElement("div");
  line.className = "bridged-toast";
  line.setAttribute("role", severity === "error" ? "alert" : "status");
  line.textContent = detail ? `${summary}: ${detail}` : summary;
  document.body.append(line);
  setTimeout(() => line.remove(), 8_000);
}

/**
 * Puts an element into the top bar; where there is none, it floats at the lower edge.
 * @param {HTMLElement} element with something in it: an empty bar is not shown
 */
export function addToTopBar(element) {
  const group = app.menu?.settingsGroup?.element;
  const place = async () => {
    if (group instanceof HTMLElement && group.parentElement) {
      element.classList.remove("bridged-floating");
      group.before(element);
      // The bar may be there and not be shown, as its owner chose; one that was empty shows up some frames later.
      for (let frame = 0; frame < 5; frame++) {
        await new Promise(requestAnimationFrame);
        if (element.getClientRects().length) return;
      }
    }
    element.classList.add("bridged-floating");
    document.body.append(element);
  };
  void place();
  app.ui?.settings?.addEventListener?.("Comfy.UseNewMenu.change", () => void place());
}

// --- what is kept in this browser ---

/**
 * Kept in this browser only. ComfyUI's own settings are kept on its server, in a file that everybody who may open
 * this page can read: not the place for keys.
 * @param {string} name @returns {string}
 */
export function recall(name) {
  return guarded("this browser's storage", () => localStorage.getItem(name)) ?? "";
}

/** @param {string} name @param {string} value "" forgets it */
export function remember(name, value) {
  guarded("this browser's storage", () => (value ? localStorage.setItem(name, value) : localStorage.removeItem(name)));
}

/**
 * A line in ComfyUI's settings whose value stays in this browser.
 * @param {{id: string, name: string, tooltip: string, secret?: boolean}} setting
 */
export function browserSetting({ id, name, tooltip, secret = false }) {
  return {
    id,
    name,
    tooltip,
    category: ["bridged", "Bridge", name],
    defaultValue: "",
    type: () => {
      const input = document.createElement("input");
      input.type = secret ? "password" : "text";
      input.autocomplete = "off";
      input.spellcheck = false;
      input.className = "bridged-setting";
      input.setAttribute("aria-label", name);
      input.value = recall(id);
      input.addEventListener("change", () => remember(id, input.value.trim()));
      return input;
    },
  };
}
