// @ts-check
/** "Lend this PC": the button in the top bar, and its dialog. The PC's owner pauses and resumes with it. */

import { addStyle, element, field, openDialog, resultPlace } from "./dialog.js";

export const TOKEN_SETTING = "bridged.token";
const PAGE = "/bridged/v1/page";

/** @typedef {{paused: boolean, until: number | null}} Lending `until`: UNIX seconds; null: until resumed */
/** @typedef {{date: string, jobs: number, seconds: number}} Served */
/** @typedef {{active: boolean, running: number, queued: number, last: number | null}} Owner */
/** @typedef {{lending: Lending, served: Served, owner: Owner}} Page */

/**
 * What the button needs of ComfyUI's front end.
 * @typedef {object} Front
 * @property {(path: string, options?: RequestInit) => Promise<Response>} fetchApi
 * @property {(event: string, action: (detail: any) => void) => void} on
 * @property {(element: HTMLElement) => void} addToTopBar
 * @property {(severity: "success" | "info" | "warn" | "error", summary: string, detail?: string) => void} toast
 * @property {(name: string) => string} recall
 * @property {(name: string, value: string) => void} remember
 */

// --- words ---

/** Whether it is paused at that time. @param {Lending} lending @param {number} now UNIX seconds */
export function isPaused({ paused, until }, now) {
  return paused && (until === null || until > now);
}

/**
 * @param {Lending} lending
 * @param {number} now UNIX seconds
 * @param {(time: Date, now: Date) => string} [clock]
 */
export function lendingText(lending, now, clock = clockText) {
  if (!isPaused(lending, now)) return "Lend this PC: on";
  if (lending.until === null) return "Lend this PC: paused";
  return `Lend this PC: paused until ${clock(new Date(lending.until * 1000), new Date(now * 1000))}`;
}

/** The time of day, with the day where that is another. @param {Date} time @param {Date} now */
function clockText(time, now) {
  const sameDay = time.toDateString() === now.toDateString();
  return time.toLocaleString([], { ...(sameDay ? {} : { weekday: "short" }), hour: "2-digit", minute: "2-digit" });
}

/** @param {Served} served */
export function servedText({ jobs, seconds }) {
  if (!jobs) return "It has not run a job for the bridge today.";
  return `Today it ran ${jobs === 1 ? "one job" : `${jobs} jobs`} for the bridge, ${durationText(seconds)} in all.`;
}

/** @param {number} seconds */
export function durationText(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** @param {Owner} owner */
function ownerText({ active, running, queued }) {
  if (!active) return "You have nothing in the queue.";
  return `Your own queue: ${running} running, ${queued} waiting. The bridge leaves the PC to you meanwhile.`;
}

/** @param {any} answer @returns {answer is Page} */
export function isPage(answer) {
  const { lending, served, owner } = answer ?? {};
  return (
    typeof lending?.paused === "boolean" &&
    (lending.until === null || typeof lending.until === "number") &&
    typeof served?.jobs === "number" &&
    typeof served?.seconds === "number" &&
    typeof owner?.active === "boolean"
  );
}

// --- the button ---

export class LendButton {
  /** @type {Page | null} */
  #page = null;
  /** @type {"unknown" | "open" | "locked" | "away"} */
  #state = "unknown";
  #front;
  #timer = 0;
  #placed = false;
  #button = element("button", { class: "bridged-lend", type: "button", hidden: true, onclick: () => this.open() });

  /** @param {Front} front */
  constructor(front) {
    this.#front = front;
  }

  /** Shows it, if this ComfyUI has the routes for it. */
  async start() {
    addStyle();
    this.#front.on("bridged.lending", (detail) => {
      if (this.#state === "open" && this.#page && typeof detail?.paused === "boolean") {
        this.#page.lending = { paused: detail.paused, until: detail.until ?? null };
        this.#show();
        return undefined;
      }
      return this.refresh();
    });
    this.#front.on("reconnected", () => this.refresh()); // after a restart of ComfyUI it may stand otherwise
    await this.refresh();
  }

  async refresh() {
    try {
      const response = await this.#ask(PAGE);
      if (response.status === 403) this.#state = "locked";
      else if (!response.ok) this.#state = "away";
      else {
        const answer = await response.json();
        this.#page = isPage(answer) ? answer : null;
        this.#state = this.#page ? "open" : "away";
      }
    } catch {
      this.#state = "away"; // ComfyUI is gone; its own front end says so
    }
    this.#show();
    if (this.#placed || this.#state === "away") return;
    this.#placed = true;
    this.#front.addToTopBar(this.#button);
  }

  /** @param {string} path @param {any} [body] */
  #ask(path, body) {
    const token = this.#front.recall(TOKEN_SETTING);
    /** @type {{[name: string]: string}} */
    const headers = token ? { "X-Bridged-Token": token } : {};
    if (body === undefined) return this.#front.fetchApi(path, { headers });
    headers["Content-Type"] = "application/json";
    return this.#front.fetchApi(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  #show() {
    clearTimeout(this.#timer);
    this.#button.hidden = this.#state === "away" || this.#state === "unknown";
    if (this.#state === "locked" || !this.#page) {
      this.#button.dataset.state = "locked";
      this.#button.textContent = "Lend this PC";
      this.#button.title = "Only the PC itself, or who has its token, may pause it. Click for more.";
      return;
    }
    const now = Date.now() / 1000;
    const { lending, served } = this.#page;
    const paused = isPaused(lending, now);
    this.#button.dataset.state = paused ? "paused" : "on";
    this.#button.textContent = lendingText(lending, now);
    this.#button.title = servedText(served);
    if (paused && lending.until !== null) {
      // The server says so, too, but its event may be lost with a connection. Timers take 24 days at most.
      const wait = Math.min((lending.until - now) * 1000 + 500, 2 ** 31 - 1);
      this.#timer = window.setTimeout(() => void this.refresh(), wait);
    }
  }

  async open() {
    await this.refresh();
    if (this.#state === "locked" || !this.#page) return this.#openLocked();
    const { lending, served, owner } = this.#page;
    const paused = isPaused(lending, Date.now() / 1000);
    const result = resultPlace();
    const change = (/** @type {string} */ path, /** @type {any} */ body) => async (/** @type {() => void} */ close) => {
      const problem = await this.#change(path, body);
      if (problem) result.say(false, problem);
      else close();
    };
    const choice = (/** @type {string} */ text, /** @type {(close: () => void) => Promise<void>} */ action) =>
      element("button", { type: "button", onclick: () => void action(() => dialog.close()) }, text);
    const pause = (/** @type {number | null} */ minutes, stop = false) =>
      change("/bridged/v1/pause", { minutes, stop });
    const dialog = openDialog({
      title: lendingText(lending, Date.now() / 1000),
      body: [
        element("p", {}, servedText(served)),
        element("p", {}, ownerText(owner)),
        element(
          "div",
          { class: "bridged-actions", role: "group", "aria-label": "Pause" },
          choice("Pause 15 min", pause(15)),
          choice("Pause 1 h", pause(60)),
          choice("Pause until I resume", pause(null)),
          choice("Stop now", pause(null, true)),
        ),
        element(
          "p",
          { class: "bridged-hint" },
          "While paused, the bridge sends nothing new, and what it runs is finished. “Stop now” pauses until you resume, and cancels what it runs, too.",
        ),
      ],
      result,
      buttons: paused
        ? [{ text: "Close" }, { text: "Resume", main: true, action: change("/bridged/v1/resume", {}) }]
        : [{ text: "Close" }],
    });
  }

  /** @param {string} path @param {any} body @returns {Promise<string>} what went wrong; "" if nothing */
  async #change(path, body) {
    try {
      const response = await this.#ask(path, body);
      if (!response.ok) return `This ComfyUI answered with status ${response.status}; nothing was changed.`;
      const answer = await response.json();
      if (this.#page && typeof answer?.lending?.paused === "boolean") this.#page.lending = answer.lending;
    } catch {
      return "This ComfyUI does not answer; nothing was changed.";
    }
    this.#show();
    if (this.#page) this.#front.toast("success", lendingText(this.#page.lending, Date.now() / 1000));
    return "";
  }

  #openLocked() {
    const token = element("input", { type: "password", autocomplete: "off", value: this.#front.recall(TOKEN_SETTING) });
    const result = resultPlace();
    return openDialog({
      title: "Lend this PC",
      body: [
        element(
          "p",
          {},
          "Only the PC's owner may pause and resume: at the PC itself (open ComfyUI there as http://127.0.0.1:8188), or from elsewhere with the token of this PC.",
        ),
        field("Token", token, "The line in the file custom_nodes/bridged_patch/token. Kept in this browser only."),
      ],
      result,
      buttons: [
        { text: "Close" },
        {
          text: "Use this token",
          main: true,
          action: async (close) => {
            this.#front.remember(TOKEN_SETTING, token.value.trim());
            await this.refresh();
            if (this.#state === "open") close();
            else result.say(false, "This ComfyUI does not take this token.");
          },
        },
      ],
    });
  }
}
