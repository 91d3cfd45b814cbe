// @ts-check
/** Accessible dialogs in ComfyUI's own colours, out of native elements. Text is text: nothing is parsed as HTML. */

const STYLE = `
.bridged-dialog { color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); font: 14px/1.45 system-ui, sans-serif;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 10px; padding: 0; width: min(36rem, calc(100vw - 2rem));
  max-height: calc(100vh - 3rem); box-shadow: 0 12px 48px #000a; margin: auto; }
.bridged-dialog::backdrop { background: #0008; }
.bridged-dialog form { display: flex; flex-direction: column; max-height: inherit; }
.bridged-dialog h2 { font-size: 1.1rem; font-weight: 600; margin: 0; padding: 1rem 1.25rem .25rem; overflow-wrap: anywhere; }
.bridged-body { padding: .25rem 1.25rem 1rem; overflow: auto; display: flex; flex-direction: column; gap: .8rem; }
.bridged-body p { margin: 0; }
.bridged-hint { color: var(--descrip-text, #999); font-size: .86rem; overflow-wrap: anywhere; }
.bridged-buttons { display: flex; flex-wrap: wrap; gap: .5rem; justify-content: flex-end; padding: .75rem 1.25rem;
  border-top: 1px solid var(--border-color, #4e4e4e); }
.bridged-dialog button, .bridged-file { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); cursor: pointer;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; padding: .35rem .8rem; }
.bridged-dialog button:hover:enabled, .bridged-file:hover { border-color: var(--descrip-text, #999); }
.bridged-dialog button.bridged-main { background: #1f6feb; border-color: #1f6feb; color: #fff; }
.bridged-dialog button:disabled { opacity: .5; cursor: default; }
.bridged-dialog :focus-visible, .bridged-lend:focus-visible { outline: 2px solid #4c8dff; outline-offset: 2px; }
.bridged-field { display: flex; flex-direction: column; gap: .25rem; }
.bridged-field > label { font-weight: 600; }
.bridged-dialog :is(input:not([type=checkbox], [type=radio], [type=file]), textarea, select), .bridged-setting {
  font: inherit; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222); box-sizing: border-box; width: 100%;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; padding: .4rem .6rem; }
.bridged-dialog textarea { resize: vertical; min-height: 4em; }
.bridged-dialog input[type=file] { position: absolute; opacity: 0; width: 1px; height: 1px; }
.bridged-file:has(:focus-visible) { outline: 2px solid #4c8dff; outline-offset: 2px; }
.bridged-file:has(:disabled) { opacity: .4; cursor: default; }
.bridged-rows { list-style: none; margin: 0; padding: 0; border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.bridged-row { display: grid; grid-template-columns: auto 1fr auto; gap: .1rem .7rem; align-items: center; padding: .45rem .7rem; }
.bridged-row + .bridged-row { border-top: 1px solid var(--border-color, #4e4e4e); }
.bridged-row > input { grid-row: 1 / span 2; width: 1.05rem; height: 1.05rem; margin: 0; accent-color: #1f6feb; }
.bridged-row label:not(.bridged-file) { overflow-wrap: anywhere; }
.bridged-row .bridged-hint { grid-column: 2; }
.bridged-row.bridged-off label { opacity: .65; }
.bridged-row code { color: var(--descrip-text, #999); font-size: .86rem; }
.bridged-picture { grid-column: 3; grid-row: 1 / span 2; display: flex; gap: .4rem; align-items: center; font-size: .86rem; }
.bridged-picture img, .bridged-thumbnail { border-radius: 4px; object-fit: contain; background: #0003; }
.bridged-picture img { width: 40px; height: 30px; }
.bridged-thumbnail { max-width: 100%; height: 120px; align-self: flex-start; }
.bridged-choices { display: flex; flex-wrap: wrap; gap: .25rem 1.2rem; border: 0; margin: 0; padding: 0; }
.bridged-actions { display: flex; flex-wrap: wrap; gap: .4rem; }
.bridged-choices legend { font-weight: 600; padding: 0; margin-bottom: .25rem; }
.bridged-choices label { display: flex; gap: .4rem; align-items: center; }
.bridged-said:not(:empty) { padding: .7rem 1.25rem; border-top: 1px solid var(--border-color, #4e4e4e); max-height: 35vh; overflow: auto; flex: none; }
.bridged-result { border-left: 3px solid; padding: .2rem .8rem; overflow-wrap: anywhere; }
.bridged-result ul { margin: .3rem 0 0; padding-left: 1.1rem; }
.bridged-result.bridged-good { border-color: #2ea043; }
.bridged-result.bridged-bad { border-color: var(--error-text, #ff4444); }
.bridged-lend { display: inline-flex; align-items: center; gap: .45rem; font: 13px/1 system-ui, sans-serif; cursor: pointer;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); white-space: nowrap; height: 2rem;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px; padding: 0 .7rem; pointer-events: auto; }
.bridged-lend[hidden] { display: none; }
.bridged-lend::before { content: ""; width: .6rem; height: .6rem; border-radius: 50%; background: #2ea043; }
.bridged-lend[data-state=paused]::before { background: #d29922; }
.bridged-lend[data-state=locked]::before { background: none; border: 2px solid #8b949e; box-sizing: border-box; }
.bridged-floating { position: fixed; left: 50%; bottom: 12px; transform: translateX(-50%); z-index: 1000; }
.bridged-toast { position: fixed; right: 12px; bottom: 56px; z-index: 10000; max-width: 30rem; padding: .6rem .9rem;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 8px; }
`;

let ids = 0;

/** An id that no other element of the page has. @returns {string} */
export function uniqueId() {
  return `bridged-${++ids}`;
}

/** Once per page, before anything of ours is shown. */
export function addStyle() {
  if (document.getElementById("bridged-style")) return;
  document.head.append(element("style", { id: "bridged-style" }, STYLE));
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {{[name: string]: any}} [attributes] on…: a listener; true and false: there or not; null: left out
 * @param {(Node | string | null | undefined)[]} children texts stay texts
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * A control with its label above it and, if given, a hint below.
 * @param {string} name @param {HTMLElement} control @param {string} [hint]
 */
export function field(name, control, hint) {
  control.id ||= uniqueId();
  const described = hint ? element("span", { class: "bridged-hint", id: `${control.id}-hint` }, hint) : null;
  if (described) control.setAttribute("aria-describedby", described.id);
  return element("div", { class: "bridged-field" }, element("label", { for: control.id }, name), control, described);
}

/**
 * A place for what went well or wrong, read out when it is filled.
 * @returns {{node: HTMLElement, say: (good: boolean, headline: string, lines?: string[]) => void, clear: () => void}}
 */
export function resultPlace() {
  const node = element("div", { class: "bridged-said", role: "status", "aria-live": "polite" });
  return {
    node,
    clear: () => node.replaceChildren(),
    say: (good, headline, lines = []) => {
      const list = lines.length ? element("ul", {}, ...lines.map((line) => element("li", {}, line))) : null;
      node.replaceChildren(
        element("div", { class: `bridged-result bridged-${good ? "good" : "bad"}` }, headline, list),
      );
    },
  };
}

/**
 * @typedef {object} Button
 * @property {string} text
 * @property {boolean} [main] what Enter does
 * @property {(close: () => void) => void | Promise<void>} [action] without one it closes the dialog
 */

/**
 * Opens a modal dialog; Escape closes it, the focus goes back to where it was.
 * `result`, a `resultPlace`, stands above the buttons, where it is seen whatever the body is scrolled to.
 * @param {{title: string, body: (Node | null)[], result?: {node: Node}, buttons: Button[], opened?: () => void}} content
 * @returns {HTMLDialogElement}
 */
export function openDialog({ title, body, result, buttons, opened }) {
  addStyle();
  const heading = element("h2", { id: uniqueId() }, title);
  const dialog = element("dialog", { class: "bridged-dialog", "aria-labelledby": heading.id });
  const close = () => dialog.close();
  const made = buttons.map(({ text, main = false, action }) => {
    const button = element("button", { type: main ? "submit" : "button", class: main ? "bridged-main" : null }, text);
    if (!main) button.addEventListener("click", () => void (action ?? close)(close));
    return button;
  });
  const main = buttons.findIndex((each) => each.main);
  const form = element(
    "form",
    {
      method: "dialog",
      novalidate: true,
      onsubmit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        if (main < 0 || made[main].disabled) return;
        made[main].disabled = true; // one at a time
        try {
          await (buttons[main].action ?? close)(close);
        } finally {
          made[main].disabled = false;
        }
      },
    },
    heading,
    element("div", { class: "bridged-body" }, ...body),
    result?.node,
    element("div", { class: "bridged-buttons" }, ...made),
  );
  dialog.append(form);
  // ComfyUI listens to keys and the clipboard on the whole page: what is typed here is not meant for it.
  for (const kind of ["keydown", "keyup", "keypress", "copy", "cut", "paste", "wheel"]) {
    dialog.addEventListener(kind, (event) => event.stopPropagation());
  }
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  opened?.();
  return dialog;
}
