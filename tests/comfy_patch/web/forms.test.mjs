// The two forms of a definition: the same answers as bridged's, for the same examples.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { brief, inputsOf, isV2, readCombo, toV1, toV2, whole } from "../../../comfy_patch/node/web/remotecombo.js";

const data = new URL("../../data/", import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, data), "utf-8"));
const examples = read("patch/forms.json");
const recorded = read("comfyui-0.3.64/object_info.json");
const text = (value) => JSON.stringify(value); // the order of keys counts

test("every example comes out as bridged says", () => {
  for (const { definition, is_v2, v2, v1, brief: short, whole: long } of examples.definitions) {
    const before = text(definition);
    assert.equal(isV2(definition), is_v2, before);
    assert.equal(text(toV2(definition)), text(v2), before);
    assert.equal(text(toV1(definition)), text(v1), before);
    assert.equal(text(brief(v2, examples.name)), text(short), before);
    assert.equal(text(whole(definition, examples.name)), text(long), before);
    assert.equal(text(definition), before);
  }
});

test("a V1 comes back from V2 as it was", () => {
  for (const { definition, is_v2 } of examples.definitions) {
    if (!is_v2) assert.equal(text(toV1(toV2(definition))), text(definition));
  }
});

test("every recorded class comes back as it was, and its V2 is V2", () => {
  for (const [name, definition] of Object.entries(recorded)) {
    const v2 = toV2(definition);
    assert.ok(isV2(v2), name);
    assert.equal(text(toV1(v2)), text(definition), name);
    assert.equal(text(toV2(v2)), text(v2), name);
    assert.equal(text(toV1(whole(brief(v2, name), name))), text(definition), name);
    assert.ok(!("input_order" in v2), name);
  }
});

test("every combo is read as bridged reads it", () => {
  for (const { spec, combo } of examples.combos) assert.deepEqual(readCombo(spec), combo, text(spec));
});

test("what is no definition stays what it is", () => {
  for (const value of [null, 1, "x", [], [{ type: "A" }]]) {
    assert.equal(isV2(value), false);
    assert.equal(toV2(value), value);
    assert.equal(toV1(value), value);
    assert.deepEqual(inputsOf(value), []);
  }
});
