// @ts-check
/** "Publish to bridge…": the dialog. */

import { picturesOf } from "./apiinputs.js";
import { element, field, openDialog, resultPlace } from "./dialog.js";
import { offered, picturesNamed } from "./marks.js";
import { thumbnail, thumbnailOf } from "./pictures.js";
import { aliasProblem, bridgeAddress, keyProblem, publish } from "./publishing.js";

/** Names of what is kept in this browser. */
export const URL_SETTING = "bridged.url";
export const KEY_SETTING = "bridged.key";

/** @typedef {"graph" | "output" | "none"} ThumbnailKind */

/**
 * What the dialog needs of ComfyUI's front end.
 * @typedef {object} Front
 * @property {() => Promise<{[id: string]: any}>} exportGraph
 * @property {() => import("./marks.js").Graph} rootGraph
 * @property {() => HTMLCanvasElement | null} graphShot
 * @property {() => string | null} outputPicture
 * @property {() => string} workflowName
 * @property {(name: string) => string} recall
 * @property {(name: string, value: string) => void} remember
 * @property {() => void} changed
 * @property {() => string[]} notes what the last export left out of what is marked
 */

/** @param {Front} front */
export async function openPublish(front) {
  const graph = front.rootGraph();
  const before = graph.extra?.bridged?.published ?? {};
  // Before the dialog covers it; the canvas has the graph as its owner sees it now.
  const shots = { graph: shotOf(front), output: await outputShot(front) };
  const workflow = await front.exportGraph();
  const inputs = offered(workflow);
  const notes = front.notes();

  const alias = element("input", {
    type: "text",
    required: true,
    value: before.alias ?? front.workflowName(),
    spellcheck: "false",
  });
  const description = element("textarea", { rows: 2 }, before.description ?? "");
  const address = element("input", {
    type: "text",
    inputmode: "url",
    value: front.recall(URL_SETTING),
    placeholder: "http://127.0.0.1:8000",
    spellcheck: "false",
  });
  const key = element("input", { type: "password", autocomplete: "off", value: front.recall(KEY_SETTING) });
  const result = resultPlace();
  const preview = element("img", { class: "bridged-thumbnail", alt: "The thumbnail as it will be sent" });
  const { fieldset, chosen } = thumbnailChoice(shots, preview);

  const send = async () => {
    const to = bridgeAddress(address.value);
    /** @type {[string, HTMLElement][]} */
    const checks = [
      [aliasProblem(alias.value.trim()), alias],
      [to ? "" : "Give the bridge's address, as http://host:port.", address],
      [keyProblem(key.value.trim()), key],
    ];
    for (const [, control] of checks) control.removeAttribute("aria-invalid");
    const wrong = checks.filter(([problem]) => problem);
    if (wrong.length) {
      for (const [, control] of wrong) control.setAttribute("aria-invalid", "true");
      result.say(
        false,
        "Not sent yet:",
        wrong.map(([problem]) => problem),
      );
      wrong[0][1].focus();
      return;
    }
    front.remember(URL_SETTING, to);
    front.remember(KEY_SETTING, key.value.trim());
    result.say(true, `Sending to ${to} …`);
    const pictures = picturesOf(graph);
    const named = picturesNamed(workflow).filter((name) => pictures[name]);
    const outcome = await publish(
      {
        alias: alias.value.trim(),
        workflow,
        description: description.value.trim(),
        thumbnail: chosen(),
        descimages: Object.fromEntries(named.map((name) => [name, pictures[name]])),
      },
      { address: to, key: key.value.trim(), origin: location.origin, fetch: fetch.bind(window) },
    );
    result.say(outcome.ok, outcome.headline, outcome.lines);
    if (!outcome.ok) return;
    // The next time the dialog has them filled in, on whichever PC the workflow is opened.
    graph.extra = { ...graph.extra };
    graph.extra.bridged = {
      ...graph.extra.bridged,
      published: { alias: alias.value.trim(), description: description.value.trim() },
    };
    front.changed();
  };

  return openDialog({
    title: "Publish to bridge",
    body: [
      element(
        "p",
        {},
        inputs.length
          ? `Callers can set ${inputs.length === 1 ? "one input" : `${inputs.length} inputs`}: ${inputs.join(", ")}`
          : "No input is marked, so callers can only run the workflow as it is. Mark some with “API inputs…” in a node's menu.",
      ),
      notes.length ? leftOut(notes) : null,
      field("Alias", alias, "The name by which callers ask for the workflow."),
      field("Description", description),
      fieldset,
      field("Bridge", address),
      field("Admin key", key, "Both are kept in this browser: not in the workflow, and not on the ComfyUI server."),
    ],
    result,
    buttons: [{ text: "Close" }, { text: "Publish", main: true, action: send }],
    opened: () => alias.focus(),
  });
}

/** @param {string[]} notes */
function leftOut(notes) {
  const list = element("ul", {}, ...notes.map((note) => element("li", {}, note)));
  return element("div", { class: "bridged-result bridged-bad" }, "Marked, but left out:", list);
}

/** @param {Front} front @returns {string | null} */
function shotOf(front) {
  try {
    const shot = front.graphShot();
    return shot && thumbnail(shot);
  } catch {
    return null; // a picture of another site is on the canvas: the browser keeps it to itself
  }
}

/** @param {Front} front @returns {Promise<string | null>} */
async function outputShot(front) {
  const address = front.outputPicture();
  if (!address) return null;
  try {
    return await thumbnailOf(address);
  } catch {
    return null; // deleted since, or no picture
  }
}

/**
 * @param {{graph: string | null, output: string | null}} shots
 * @param {HTMLImageElement} preview
 */
function thumbnailChoice(shots, preview) {
  /** @type {[ThumbnailKind, string][]} */
  const kinds = [
    ["graph", "The graph as shown now"],
    ["output", "The last output"],
    ["none", "None"],
  ];
  /** @type {ThumbnailKind} */
  let kind = shots.output ? "output" : shots.graph ? "graph" : "none";
  const chosen = () => (kind === "none" ? null : shots[kind]);
  const show = () => {
    const url = chosen();
    preview.hidden = !url;
    if (url) preview.src = url;
  };
  const options = kinds.map(([value, text]) => {
    const radio = element("input", {
      type: "radio",
      name: "bridged-thumbnail",
      value,
      checked: value === kind,
      disabled: value !== "none" && !shots[value],
      onchange: () => {
        kind = value;
        show();
      },
    });
    return element("label", {}, radio, text);
  });
  show();
  const choices = element("fieldset", { class: "bridged-choices" }, element("legend", {}, "Thumbnail"), ...options);
  return { fieldset: element("div", { class: "bridged-field" }, choices, preview), chosen };
}
