// What the owner's button says.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { durationText, isPage, isPaused, LendButton, lendingText, servedText } from "../../../comfy_patch/node/web/lend.js";

const clock = (time) => time.toISOString().slice(11, 16);

test("it is on, paused until somebody resumes, or until a time", () => {
  assert.equal(lendingText({ paused: false, until: null }, 100), "Lend this PC: on");
  assert.equal(lendingText({ paused: true, until: null }, 100), "Lend this PC: paused");
  assert.equal(lendingText({ paused: true, until: 3600 }, 100, clock), "Lend this PC: paused until 01:00");
});

test("a pause that is over is none, even where nobody has said so", () => {
  assert.equal(isPaused({ paused: true, until: 100 }, 100), false);
  assert.equal(isPaused({ paused: true, until: 100.5 }, 100), true);
  assert.equal(lendingText({ paused: true, until: 99 }, 100), "Lend this PC: on");
});

test("what it has served is in words", () => {
  assert.match(servedText({ date: "2026-11-23", jobs: 0, seconds: 0 }), /not run a job/);
  assert.match(servedText({ date: "2026-11-23", jobs: 1, seconds: 59.4 }), /one job .* 59 s/);
  assert.deepEqual([59.6, 754, 3600, 7325].map(durationText), ["1 min", "13 min", "1 h 0 min", "2 h 2 min"]);
});

test("only an answer of the shape agreed on is taken", () => {
  const page = JSON.parse(readFileSync(new URL("../../data/patch/page.json", import.meta.url), "utf-8"));
  assert.equal(isPage(page), true);
  for (const wrong of [
    null,
    {},
    [],
    { ...page, lending: { paused: 1, until: null } },
    { ...page, served: undefined },
  ]) {
    assert.equal(isPage(wrong), false);
  }
});

test("the button is back once ComfyUI is, and says how things stand then", async (t) => {
  const page = JSON.parse(readFileSync(new URL("../../data/patch/page.json", import.meta.url), "utf-8"));
  const made = () => ({ dataset: {}, addEventListener() {}, setAttribute() {}, append() {} });
  globalThis.document = { createElement: made, getElementById: () => ({}) };
  globalThis.window = { setTimeout: () => 0 };
  t.after(() => {
    delete globalThis.document;
    delete globalThis.window;
  });
  const events = new Map();
  const shown = [];
  let answer = async () => new Response(JSON.stringify({ ...page, lending: { paused: false, until: null } }));
  const button = new LendButton({
    fetchApi: () => answer(),
    on: (event, action) => events.set(event, action),
    addToTopBar: (element) => shown.push(element),
    toast() {},
    recall: () => "",
    remember() {},
  });
  await button.start();
  assert.equal(shown[0].textContent, "Lend this PC: on");
  const whole = answer;
  answer = async () => new Response("", { status: 500 });
  await button.refresh();
  assert.equal(shown[0].hidden, true);
  answer = whole;
  await events.get("bridged.lending")({ paused: true, until: null });
  assert.equal(shown[0].hidden, false);
  answer = async () => new Response(JSON.stringify({ ...page, lending: { paused: true, until: null } }));
  await events.get("reconnected")(undefined);
  assert.deepEqual([shown.length, shown[0].hidden, shown[0].textContent], [1, false, "Lend this PC: paused"]);
});
