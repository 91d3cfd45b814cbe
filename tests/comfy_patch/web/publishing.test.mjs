// What is sent to a bridge, and what its answers are to people.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  aliasProblem,
  bridgeAddress,
  detailLines,
  keyProblem,
  publish,
} from "../../../comfy_patch/node/web/publishing.js";

const PUBLICATION = { alias: "a", workflow: { 1: {} }, description: "", thumbnail: null, descimages: {} };
const MEANS = { address: "http://bridge:8000", key: "bk_1", origin: "http://pc:8188" };
const answering = (status, body) => async () =>
  new Response(body === undefined ? "<html>" : JSON.stringify(body), { status });
const outcome = (status, body) => publish(PUBLICATION, { ...MEANS, fetch: answering(status, body) });

test("an alias has 1 to 200 characters, counted as the bridge counts", () => {
  assert.notEqual(aliasProblem(""), "");
  assert.equal(aliasProblem("😀".repeat(200)), "");
  assert.notEqual(aliasProblem("😀".repeat(201)), "");
  assert.notEqual(aliasProblem("a\nb"), "");
  assert.notEqual(aliasProblem("\ud800"), "");
  assert.equal(aliasProblem("그림 / picture"), "");
});

test("an address is brought to one form, or is none", () => {
  assert.equal(bridgeAddress(" bridge.example:8000/ "), "http://bridge.example:8000");
  assert.equal(bridgeAddress("https://Host/sub/?x#y"), "https://host/sub");
  for (const text of ["", "ftp://host", "http://user:pass@host", "http://", "javascript:alert(1)"]) {
    assert.equal(bridgeAddress(text), "", text);
  }
});

test("a key that no header can carry is told before it is sent", () => {
  assert.equal(keyProblem("bk_Az-09"), "");
  assert.equal(keyProblem(""), "");
  for (const key of ["a b", "a\n", "schlüssel"]) assert.notEqual(keyProblem(key), "");
});

test("the key goes into the header alone, and nowhere but to this bridge", async () => {
  let seen;
  await publish(PUBLICATION, { ...MEANS, fetch: async (...args) => ((seen = args), new Response("{}")) });
  const [url, { method, headers, body, credentials, redirect }] = seen;
  assert.deepEqual(
    [url, method, credentials, redirect],
    ["http://bridge:8000/admin/workflows", "POST", "omit", "error"],
  );
  assert.equal(headers.Authorization, "Bearer bk_1");
  assert.deepEqual(JSON.parse(body), PUBLICATION);
});

test("every input, warning and error of the answer is shown", async () => {
  const created = await outcome(201, {
    alias: "a",
    inputs: ["1/x", "2/y"],
    warnings: ["w1", { node: "3", message: "w2" }],
    previous: null,
  });
  assert.deepEqual(created, {
    ok: true,
    headline: "a is published.",
    lines: ["Inputs: 1/x, 2/y", "Warning: w1", "Warning: 3: w2"],
  });
  const replaced = await outcome(200, { alias: "a", inputs: [], warnings: [], previous: "a.1.json" });
  assert.equal(replaced.ok, true);
  assert.deepEqual(replaced.lines, ["It has no inputs that can be set.", "The version before is kept as a.1.json."]);
  const refused = await outcome(400, { detail: "one\ntwo" });
  assert.deepEqual([refused.ok, refused.lines], [false, ["one", "two"]]);
  assert.deepEqual(detailLines({ detail: [{ loc: ["body", "alias"], msg: "too long" }, "x", { odd: 1 }] }), [
    "body.alias: too long",
    "x",
    '{"odd":1}',
  ]);
});

test("other statuses say what to do, whatever the body is", async () => {
  for (const [status, words] of [
    [401, /key/],
    [403, /admin/],
    [404, /no bridge/],
    [413, /too large/],
    [500, /500/],
  ]) {
    const { ok, headline } = await outcome(status);
    assert.equal(ok, false);
    assert.match(headline, words);
  }
});

test("where the bridge wants a key and none was given, that is said", async () => {
  for (const status of [401, 403]) {
    const fetch = async () => Response.json({ detail: "an API key is needed" }, { status });
    const { headline, lines } = await publish(PUBLICATION, { ...MEANS, key: "", fetch });
    assert.match(headline, /asks for a key/);
    assert.deepEqual(lines, ["an API key is needed"]);
  }
});

test("a bridge that is there but lets this page not call it is told apart from one that is not there", async () => {
  const blocked = async (_url, { mode }) => {
    if (mode === "no-cors") return new Response();
    throw new TypeError("Failed to fetch");
  };
  const listed = await publish(PUBLICATION, { ...MEANS, fetch: blocked });
  assert.match(listed.lines.join(" "), /\[access\]: cors = \["http:\/\/pc:8188"\]/);
  const away = async () => {
    throw new TypeError("Failed to fetch");
  };
  assert.match((await publish(PUBLICATION, { ...MEANS, fetch: away })).headline, /Nothing answers/);
  const mixed = await publish(PUBLICATION, { ...MEANS, origin: "https://pc", fetch: away });
  assert.match(mixed.headline, /https/);
  const slow = async () => {
    throw new DOMException("", "TimeoutError");
  };
  assert.match((await publish(PUBLICATION, { ...MEANS, fetch: slow })).headline, /30 s/);
});
