// @ts-check
/** The bridge's side of publishing: what is sent to it, and what its answers mean to people. No DOM. */

/** @typedef {{ok: boolean, headline: string, lines: string[]}} Outcome */

/** ms; a bridge checks and writes a file, and may ask its PCs what nodes they have */
const TIMEOUT = 30_000;

/**
 * Why the bridge would refuse an alias; "" if it would not.
 * @param {string} alias
 */
export function aliasProblem(alias) {
  if (!alias) return "Give the workflow an alias: callers name it by that.";
  const { length } = [...alias]; // code points, as the bridge counts
  if (length > 200) return `An alias has at most 200 characters; this one has ${length}.`;
  if (/\p{Cc}|\p{Cs}/u.test(alias)) return "An alias is one line of text.";
  return "";
}

/**
 * A bridge's address in one form: "http://host:8000", without a slash at its end.
 * @param {string} text @returns {string} "" where it is none
 */
export function bridgeAddress(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  try {
    const url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) ? trimmed : `http://${trimmed}`);
    if (!["http:", "https:"].includes(url.protocol) || url.username || url.password) return "";
    return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
  } catch {
    return "";
  }
}

/** @param {string} key @returns {string} what is wrong with it; "" if nothing */
export function keyProblem(key) {
  return /^[\x21-\x7e]*$/.test(key) ? "" : "The key has characters that no key has; copy it again.";
}

/**
 * @typedef {object} Publication
 * @property {string} alias
 * @property {{[id: string]: any}} workflow API format
 * @property {string} description
 * @property {string | null} thumbnail a data URL
 * @property {{[name: string]: string}} descimages data URLs
 */

/**
 * Sends it, and says what became of it; never rejects.
 * @param {Publication} publication
 * @param {{address: string, key: string, origin: string, fetch: typeof fetch}} means `origin`: this page's
 * @returns {Promise<Outcome>}
 */
export async function publish(publication, { address, key, origin, fetch }) {
  let response;
  try {
    response = await fetch(`${address}/admin/workflows`, {
      method: "POST",
      mode: "cors",
      credentials: "omit",
      redirect: "error", // the key is for this bridge alone
      headers: { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify(publication),
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch (error) {
    return await unreachable(error, { address, origin, fetch });
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    // Something between us and the bridge answered; its status says the most.
  }
  return outcome(response.status, answer, publication, key);
}

/**
 * @param {unknown} error
 * @param {{address: string, origin: string, fetch: typeof fetch}} means
 * @returns {Promise<Outcome>}
 */
async function unreachable(error, { address, origin, fetch }) {
  if (error instanceof Error && error.name === "TimeoutError") {
    return failure(`${address} did not answer within ${TIMEOUT / 1000} s.`);
  }
  if (origin.startsWith("https:") && address.startsWith("http:")) {
    return failure(`This page came by https, so the browser does not let it call ${address}.`, [
      "Use the bridge's https address, or open ComfyUI by http.",
    ]);
  }
  try {
    // Without CORS a page may ask, but not read the answer: enough to know that somebody is there.
    await fetch(`${address}/`, { mode: "no-cors", credentials: "omit", signal: AbortSignal.timeout(5_000) });
  } catch {
    return failure(`Nothing answers at ${address}.`, ["Is the address right, and is the bridge running?"]);
  }
  return failure(`${address} is there, but does not let this page call it.`, [
    `Its operator lists this page's origin in bridged.toml, under [access]: cors = ["${origin}"]`,
    "The bridge takes that up as soon as the file is saved.",
  ]);
}

/**
 * @param {number} status @param {any} answer @param {Publication} publication @param {string} key
 * @returns {Outcome}
 */
function outcome(status, answer, { alias }, key) {
  const lines = detailLines(answer);
  if (status === 200 || status === 201) {
    const name = typeof answer?.alias === "string" ? answer.alias : alias;
    const inputs = Array.isArray(answer?.inputs) ? answer.inputs.map(String) : [];
    const warnings = Array.isArray(answer?.warnings)
      ? answer.warnings.map((/** @type {any} */ each) => `Warning: ${oneLine(each)}`)
      : [];
    const kept = answer?.previous ? [`The version before is kept as ${answer.previous}.`] : [];
    return {
      ok: true,
      headline: status === 201 ? `${name} is published.` : `${name} is published; it replaces the version before.`,
      lines: [
        inputs.length ? `Inputs: ${inputs.join(", ")}` : "It has no inputs that can be set.",
        ...warnings,
        ...kept,
      ],
    };
  }
  if (!key && (status === 401 || status === 403)) return failure("The bridge asks for a key.", lines);
  if (status === 401) return failure("The bridge does not know this key.", lines);
  if (status === 403) return failure("This key may not publish: it needs the scope admin.", lines);
  if (status === 404 || status === 405) {
    return failure("There is no bridge that takes workflows at this address.", lines);
  }
  if (status === 413) return failure("The workflow with its pictures is too large for the bridge.", lines);
  if (status === 400 || status === 422) return failure("The bridge refuses the workflow:", lines);
  return failure(`The bridge answered with status ${status}.`, lines);
}

/** @param {string} headline @param {string[]} [lines] @returns {Outcome} */
const failure = (headline, lines = []) => ({ ok: false, headline, lines });

/**
 * Everything that an error answer says, one line each, whatever its shape.
 * @param {any} answer
 * @returns {string[]}
 */
export function detailLines(answer) {
  const detail = answer?.detail ?? answer?.error ?? answer?.message;
  if (detail === undefined || detail === null) return [];
  const each = Array.isArray(detail) ? detail : [detail];
  return each
    .flatMap((one) => oneLine(one).split("\n"))
    .map((line) => line.trim())
    .filter(Boolean);
}

/** @param {any} value @returns {string} */
function oneLine(value) {
  if (typeof value === "string") return value;
  const message = value?.msg ?? value?.message ?? value?.detail;
  if (typeof message !== "string") return JSON.stringify(value);
  const place = Array.isArray(value.loc) ? value.loc.join(".") : (value.where ?? value.node);
  return place ? `${place}: ${message}` : message;
}
