// @ts-check
/** The extension "bridged": which part of it hangs where in ComfyUI's front end. */

import { equip, openInputs } from "./apiinputs.js";
import * as front from "./frontend.js";
import { LendButton, TOKEN_SETTING } from "./lend.js";
import { mark, unmark } from "./marks.js";
import { KEY_SETTING, openPublish, URL_SETTING } from "./publish.js";
import { adoptDefinition, equipRemote } from "./remotewidgets.js";

/** @typedef {import("./marks.js").GraphNode} GraphNode */

/** What the last export left out of what is marked. @type {string[]} */
let notes = [];

/** @param {GraphNode} node */
const openFor = (node) => openInputs(node, front.rootGraph(), front.changed);

function openForSelected() {
  const [node, ...others] = front.selectedNodes();
  if (node && !others.length) openFor(node);
  else front.toast("info", "API inputs", "Select one node first.");
}

function publishOpen() {
  openPublish({ ...front, notes: () => notes }).catch((error) =>
    front.toast("error", "Publish to bridge", String(error)),
  );
}

front.register({
  name: "bridged",
  commands: [
    {
      id: "bridged.inputs",
      label: "API inputs of the selected node…",
      icon: "pi pi-list-check",
      function: openForSelected,
    },
    { id: "bridged.publish", label: "Publish to bridge…", icon: "pi pi-cloud-upload", function: publishOpen },
  ],
  menuCommands: [
    { path: ["File"], commands: ["bridged.publish"] },
    { path: ["Edit"], commands: ["bridged.inputs"] },
  ],
  settings: [
    front.browserSetting({
      id: URL_SETTING,
      name: "Bridge",
      tooltip: "Where “Publish to bridge” sends workflows, like http://127.0.0.1:8000. Kept in this browser.",
    }),
    front.browserSetting({
      id: KEY_SETTING,
      name: "Admin key",
      tooltip: "A key of the bridge with the scope admin. Kept in this browser only.",
      secret: true,
    }),
    front.browserSetting({
      id: TOKEN_SETTING,
      name: "This PC's token",
      tooltip:
        "For pausing this PC from another one: the line in custom_nodes/bridged_patch/token. Kept in this browser only.",
      secret: true,
    }),
  ],
  ...front.menu("Node", (node) => [{ content: "API inputs…", callback: () => void openFor(node) }]),
  ...front.menu("Canvas", () => [{ content: "Publish to bridge…", callback: publishOpen }]),

  /** All definitions, when the page is opened. @param {any} definitions */
  addCustomNodeDefs(definitions) {
    front.guarded("reading node definitions", () => Object.values(definitions).forEach(adoptDefinition));
  },

  /** One definition: also when they are fetched anew, which passes the hook above by. @param {any} _type @param {any} definition */
  beforeRegisterNodeDef(_type, definition) {
    front.guarded("reading a node definition", () => adoptDefinition(definition));
  },

  /** @param {any} node */
  nodeCreated(node) {
    front.guarded("equipping a node", () => {
      equip(node, front.badge);
      equipRemote(node, front);
    });
  },

  async setup() {
    front.markExports((output, graph) => {
      notes = mark(output, graph);
      for (const note of notes) console.warn(`[bridged] marked, but left out: ${note}`);
    }, unmark);
    front.followOutputs();
    await new LendButton(front).start();
  },
});
