// How marks are kept, chosen and written into the API format.
import assert from "node:assert/strict";
import { test } from "node:test";

import { equip, keepPictures, picturesOf } from "../../../comfy_patch/node/web/apiinputs.js";
import { choicesOf } from "../../../comfy_patch/node/web/choices.js";
import {
  asProperties,
  INPUTS,
  mark,
  marksOf,
  offered,
  parseNames,
  parsePictures,
  pictureName,
  picturesNamed,
  PICTURES,
  TITLE,
  unmark,
} from "../../../comfy_patch/node/web/marks.js";
import { graph, node, output, subgraph } from "./standins.mjs";

const reasons = (one) => Object.fromEntries(choicesOf(one).map(({ name, reason }) => [name, reason]));

test("names are as the bridge reads them: trimmed, without empty ones, each once", () => {
  assert.deepEqual(parseNames(" seed, steps,,seed ,"), ["seed", "steps"]);
  assert.deepEqual(parseNames(undefined), []);
  assert.deepEqual(
    [...parsePictures("a=b=c.png, seed = x.jpg, broken, =y, z=")],
    [
      ["a=b", "c.png"],
      ["seed", "x.jpg"],
    ],
  );
});

test("marks come back from their properties", () => {
  const marks = {
    names: ["seed", "a=b"],
    pictures: new Map([
      ["a=b", "m.png"],
      ["gone", "n.png"],
    ]),
    title: "My title",
  };
  const properties = asProperties(marks);
  assert.deepEqual(properties, { [INPUTS]: "seed, a=b", [PICTURES]: "a=b=m.png", [TITLE]: "My title" });
  const found = marksOf(node(1, {}, properties));
  assert.deepEqual(found, { ...marks, pictures: new Map([["a=b", "m.png"]]) });
});

test("a picture's name is plain, short and not taken", () => {
  assert.equal(pictureName("How large & wide!.PNG", "png"), "How-large-wide.png");
  assert.equal(pictureName("../../etc/passwd.d/x.png", "jpg"), "etc-passwd-d-x.jpg");
  assert.equal(pictureName("모양.webp", "png", ["picture.png"]), "picture-2.png");
  assert.match(pictureName("x".repeat(300), "png"), /^x{40}\.png$/);
});

test("the export has the marks, and what is queued does not", () => {
  const one = node(
    3,
    { seed: 1, steps: 20 },
    { [INPUTS]: "steps, seed", [PICTURES]: "seed=s.png", [TITLE]: "Sampler" },
  );
  const two = node(4, { text: "a" });
  const api = output(one, two);
  const before = structuredClone(api);
  assert.deepEqual(mark(api, graph(one, two)), []);
  assert.deepEqual(api[3]._meta, { title: "Sampler", apiinput: "steps,seed", descimage: ["", "s.png"] });
  assert.deepEqual(api[4], before[4]);
  assert.deepEqual(offered(api), ["3/steps", "3/seed"]);
  assert.deepEqual(picturesNamed(api), ["s.png"]);
  const copied = structuredClone(api);
  unmark(api);
  assert.deepEqual(api, before);
  unmark(copied); // by another extension: only the title stays ours
  assert.deepEqual(copied[3]._meta, { title: "Sampler" });
  unmark(undefined);
});

test("one picture for all inputs is one name", () => {
  const one = node(1, { a: 1, b: 2 }, { [INPUTS]: "a,b", [PICTURES]: "a=p.png, b=p.png" });
  const api = output(one);
  mark(api, graph(one));
  assert.equal(api[1]._meta.descimage, "p.png");
});

test("what the bridge would refuse is left out and told", () => {
  const one = node(1, { a: 1, list: [1], none: null }, { [INPUTS]: "a, gone, linked, list, none" });
  const muted = node(2, { a: 1 }, { [INPUTS]: "a" });
  const api = output(one);
  Object.assign(api[1].inputs, { linked: ["7", 0], list: { __value__: [1] } });
  const notes = mark(api, graph(one, muted));
  assert.equal(api[1]._meta.apiinput, "a");
  assert.deepEqual(
    notes.map((note) => note.split(":")[0]),
    ["1/gone", "1/linked", "1/list", "1/none", "2"],
  );
});

test("marks inside of a subgraph and on its node go to the ids of the API format", () => {
  const sampler = node(3, { seed: 1, cfg: 7 }, { [INPUTS]: "cfg" });
  const innermost = node(9, { size: 5 });
  const inner = node(
    8,
    {},
    {},
    { inputs: [{ name: "big", link: 1 }], subgraph: subgraph({ big: [[9, "size"]] }, innermost) },
  );
  const inside = subgraph(
    {
      seed2: [[3, "seed"]],
      large: [[8, "big"]],
      both: [
        [3, "seed"],
        [3, "cfg"],
      ],
    },
    sampler,
    inner,
  );
  const widgets = { seed2: 1, large: 5, both: 1 };
  const outer = node(12, widgets, { [INPUTS]: "seed2, large, both", [PICTURES]: "seed2=s.png" }, { subgraph: inside });
  const api = output({ ...sampler, id: "12:3" }, { ...innermost, id: "12:8:9" });
  const notes = mark(api, graph(outer));
  assert.deepEqual(offered(api), ["12:3/cfg", "12:3/seed", "12:8:9/size"]);
  assert.deepEqual(api["12:3"]._meta.descimage, ["", "s.png"]);
  assert.equal(notes.length, 1);
  assert.match(notes[0], /both: leads to 2/);
  assert.deepEqual(Object.values(reasons(outer)).map(Boolean), [false, false, true]);
});

test("widgets of a subgraph that are shown without a link are found as well", () => {
  const sampler = node(3, { seed: 1 });
  const outer = node(12, {}, { [INPUTS]: "3: seed" }, { subgraph: subgraph({}, sampler) });
  outer.widgets = [{ name: "3: seed", value: 1, _overlay: { nodeId: "3", widgetName: "seed" } }];
  const api = output({ ...sampler, id: "12:3" });
  assert.deepEqual(mark(api, graph(outer)), []);
  assert.deepEqual(offered(api), ["12:3/seed"]);
});

test("what can be chosen, under which name, and why the rest cannot", () => {
  const one = node(1, { seed: 1, "a,b": 1, " x": "", linked: 2, nothing: null, list: [1], old: 3 });
  one.widgets[0].label = "Seed of the night";
  one.inputs[3].link = 7;
  one.widgets[6].type = "converted-widget:number";
  one.widgets.push(
    { name: "upload", type: "button", value: null },
    { name: "control", value: "fixed", options: { serialize: false } },
  );
  const found = choicesOf(one);
  assert.deepEqual(
    found.map(({ name }) => name),
    ["seed", "a,b", " x", "linked", "nothing", "list", "old"],
  );
  assert.equal(found[0].label, "Seed of the night");
  assert.deepEqual(
    found.map(({ reason }) => reason !== ""),
    [false, true, true, true, true, true, true],
  );
  assert.match(found[3].reason, /linked/);
  const group = node(2, { a: 1 }, {}, { getInnerNodes: () => [] });
  assert.match(reasons(group).a, /group node/);
});

test("bounds, steps and choices are told where they say something", () => {
  const one = node(1, { a: 1, b: 0.5, seed: 1, mode: "x", many: "m0", text: "t" });
  one.widgets[0].options = { min: 1, max: 64, step2: 1, step: 10 };
  one.widgets[1].options = { min: 0, max: 1, step: 0.5 };
  one.widgets[2].options = { min: 0, max: 18446744073709552000, step2: 1 };
  Object.assign(one.widgets[3], { type: "combo", options: { values: ["x", "y"] } });
  Object.assign(one.widgets[4], { type: "combo", options: { values: Array.from({ length: 9 }, (_, at) => `m${at}`) } });
  const facts = choicesOf(one).map((choice) => choice.facts);
  assert.deepEqual(facts, [
    "1 to 64",
    "0 to 1, in steps of 0.05",
    "from 0",
    "x, y",
    "m0, m1, m2, m3 … (9 choices)",
    "",
  ]);
});

test("an empty property is shown on every node with widgets, but not saved", () => {
  const one = node(1, { a: 1 });
  const seen = [];
  one.onPropertyChanged = (name) => name !== "refused";
  equip(one, (_, names) => seen.push(names));
  assert.equal(one.properties[INPUTS], "");
  const saved = { properties: { ...one.properties, other: "" } };
  one.onSerialize(saved);
  assert.deepEqual(saved.properties, { other: "" });
  one.properties[INPUTS] = "a";
  assert.equal(one.onPropertyChanged(INPUTS, "a"), true);
  assert.equal(one.onPropertyChanged("refused"), false);
  assert.deepEqual(seen, [["a"]]);
});

test("only marked widgets in view are drawn on, and other extensions still draw", () => {
  const drawn = [];
  const context = { beginPath() {}, moveTo: (x, y) => drawn.push([x, y]), lineTo() {}, fill() {} };
  const one = node(1, { a: 1, b: 2 }, { [INPUTS]: "b" }, { size: [200, 80], flags: {} });
  one.widgets.forEach((widget, at) => (widget.last_y = 30 + 24 * at));
  let others = 0;
  one.onDrawForeground = () => others++;
  equip(one);
  one.onDrawForeground(context);
  one.flags.collapsed = true;
  one.onDrawForeground(context);
  assert.deepEqual(drawn, [[192.5, 58]]);
  assert.equal(others, 2);
});

test("pictures that no node names any more are dropped, and addresses are no pictures", () => {
  const png = "data:image/png;base64,AA==";
  const inner = node(5, { a: 1 }, { [INPUTS]: "a", [PICTURES]: "a=inner.png" });
  const all = graph(
    node(1, { a: 1 }, { [INPUTS]: "a", [PICTURES]: "a=used.png" }),
    node(2, {}, {}, { subgraph: subgraph({}, inner) }),
  );
  all.extra = { ds: 1, bridged: { published: { alias: "x" } } };
  keepPictures(all, { "used.png": png, "inner.png": png, "unused.png": png });
  assert.deepEqual(all.extra, {
    ds: 1,
    bridged: { published: { alias: "x" }, pictures: { "used.png": png, "inner.png": png } },
  });
  all.extra.bridged.pictures.bad = "https://elsewhere/x.png";
  assert.deepEqual(Object.keys(picturesOf(all)), ["used.png", "inner.png"]);
  const bare = graph();
  bare.extra = { ds: 1, bridged: { pictures: { "x.png": png } } };
  keepPictures(bare, picturesOf(bare));
  assert.deepEqual(bare.extra, { ds: 1 });
});
