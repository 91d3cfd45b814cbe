// The remote widget's cache, with a clock and a fetch of our own.
import assert from "node:assert/strict";
import { test } from "node:test";

import { address, backoff, cacheKey, lazyOptions, RemoteOptions } from "../../../comfy_patch/node/web/remotecombo.js";

const FILES = {
  route: "/internal/files/loras",
  response_key: "files",
  query_params: {},
  refresh: 0,
  cache_key: null,
  invalidation_signal: null,
  extra: {},
};

/** A server that answers when it is told to. */
function server() {
  const asked = [];
  const state = { now: 1_000_000, changes: [] };
  const cache = new RemoteOptions({
    fetch: (url, signal) =>
      new Promise((resolve, reject) => {
        asked.push({ url, answer: resolve, fail: () => reject(new Error("away")), signal });
      }),
    now: () => state.now,
    changed: (key) => state.changes.push(key),
  });
  return { asked, state, cache };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("nothing is fetched before the first look, and a look never waits", async () => {
  const { asked, state, cache } = server();
  const options = lazyOptions({ values: "stock", other: 1 }, cache, FILES, ["Loading"]);
  assert.equal(options.other, 1);
  assert.equal(cache.peek(FILES), null);
  await settled();
  assert.equal(asked.length, 0);
  assert.deepEqual(options.values, ["Loading"]);
  await settled();
  assert.equal(asked[0].url, "/internal/files/loras");
  asked[0].answer({ files: ["a"] });
  await settled();
  assert.deepEqual(options.values, ["a"]);
  assert.deepEqual(state.changes, [cacheKey(FILES)]);
});

test("one fetch is in flight for each key, whoever looks and whatever they take of the answer", async () => {
  const { asked, cache } = server();
  const whole = { ...FILES, response_key: null };
  cache.look(FILES);
  cache.look(FILES);
  cache.look({ ...FILES, response_key: "more" });
  const loading = cache.load(FILES);
  cache.look({ ...FILES, query_params: { first: ["None"] } });
  await settled();
  assert.deepEqual(
    asked.map(({ url }) => url),
    ["/internal/files/loras", "/internal/files/loras?first=None"],
  );
  asked[0].answer({ files: ["a"], more: ["b"] });
  assert.deepEqual(await loading, ["a"]);
  assert.deepEqual(cache.look({ ...FILES, response_key: "more" }), ["b"]);
  assert.equal(cache.look(whole), null);
});

test("without a refresh time an answer stays; with one, the old choices are shown while it is renewed", async () => {
  const { asked, state, cache } = server();
  const renewed = { ...FILES, route: "/renewed", refresh: 500 };
  for (const remote of [FILES, renewed]) cache.look(remote);
  await settled();
  for (const each of asked) each.answer({ files: ["old"] });
  await settled();
  state.now += 499;
  for (const remote of [FILES, renewed]) cache.look(remote);
  await settled();
  assert.equal(asked.length, 2);
  state.now += 1;
  for (const remote of [FILES, renewed]) assert.deepEqual(cache.look(remote), ["old"]);
  await settled();
  assert.equal(asked.length, 3);
  asked[2].answer({ files: ["new"] });
  await settled();
  assert.deepEqual(cache.look(renewed), ["new"]);
  state.now += 1e9;
  cache.look(FILES);
  await settled();
  assert.equal(asked.length, 3);
});

test("failures are retried after 1, 2, 4, 8, then 10 s, and a success starts over", async () => {
  assert.deepEqual([1, 2, 3, 4, 5, 60].map(backoff), [1000, 2000, 4000, 8000, 10_000, 10_000]);
  const { asked, state, cache } = server();
  for (const wait of [1000, 2000, 4000]) {
    cache.look(FILES);
    await settled();
    asked.at(-1).fail();
    await settled();
    assert.equal(cache.problem(FILES).message, "away");
    state.now += wait - 1;
    const { length } = asked;
    cache.look(FILES);
    await settled();
    assert.equal(asked.length, length);
    state.now += 1;
  }
  cache.look(FILES);
  await settled();
  assert.equal(asked.length, 4);
  asked[3].answer({ files: ["a"] });
  await settled();
  assert.equal(cache.problem(FILES), null);
});

test("an answer without a list is a failure, and old choices outlive it", async () => {
  const { asked, state, cache } = server();
  const remote = { ...FILES, refresh: 100 };
  cache.look(remote);
  await settled();
  asked[0].answer({ files: ["a"] });
  await settled();
  state.now += 100;
  cache.look(remote);
  await settled();
  asked[1].answer({ files: "a" });
  await settled();
  assert.deepEqual(cache.look(remote), ["a"]);
  assert.match(cache.problem(remote).message, /no list/);
});

test("forceUpdate drops a fetch under way and past failures, and keeps what is shown", async () => {
  const { asked, cache } = server();
  cache.look(FILES);
  await settled();
  asked[0].fail();
  await settled();
  cache.forceUpdate(FILES);
  cache.look(FILES);
  await settled();
  assert.equal(asked.length, 2);
  cache.forceUpdate(FILES);
  assert.equal(asked[1].signal.aborted, true);
  const loading = cache.load(FILES);
  await settled();
  asked[1].answer({ files: ["too late"] });
  asked[2].answer({ files: ["new"] });
  assert.deepEqual(await loading, ["new"]);
});

test("a signal renews at once what was looked at and names it; one during a fetch makes the next look fetch", async () => {
  const { asked, cache } = server();
  const remote = { ...FILES, invalidation_signal: "files.loras" };
  cache.invalidate("files.loras");
  cache.look(remote);
  cache.look({ ...FILES, route: "/other" });
  await settled();
  assert.deepEqual(cache.signals(), ["files.loras"]);
  for (const each of asked) each.answer({ files: ["a"] });
  await settled();
  cache.invalidate("files.loras");
  await settled();
  assert.equal(asked.length, 3);
  cache.invalidate("files.loras");
  await settled();
  assert.equal(asked.length, 3);
  asked[2].answer({ files: ["b"] });
  await settled();
  assert.deepEqual(cache.look(remote), ["b"]);
  await settled();
  assert.equal(asked.length, 4);
});

test("a signal whose fetch fails is not forgotten", async () => {
  const { asked, state, cache } = server();
  const remote = { ...FILES, invalidation_signal: "s" };
  cache.look(remote);
  await settled();
  asked[0].answer({ files: ["a"] });
  await settled();
  cache.invalidate("s");
  await settled();
  asked[1].fail();
  await settled();
  state.now += 1000;
  cache.look(remote);
  await settled();
  assert.equal(asked.length, 3);
});

test("a key of the author's own is shared, whatever the address", () => {
  assert.equal(cacheKey({ ...FILES, cache_key: "x" }), cacheKey({ ...FILES, route: "/y", cache_key: "x" }));
  assert.notEqual(cacheKey(FILES), cacheKey({ ...FILES, cache_key: cacheKey(FILES) }));
});

test("lists are joined by commas, and what is null is left out", () => {
  const query_params = { filter_ext: [".ckpt", ".pt"], folder_path: "a b", none: null };
  assert.equal(address({ ...FILES, query_params }), "/internal/files/loras?filter_ext=.ckpt%2C.pt&folder_path=a+b");
  assert.equal(address({ ...FILES, route: "/a?b=c", query_params: { d: 1 } }), "/a?b=c&d=1");
});

test("writing the choices means: fetch them anew, once somebody had looked", async () => {
  const { asked, cache } = server();
  const options = lazyOptions({}, cache, FILES);
  options.values = undefined;
  await settled();
  assert.equal(asked.length, 0);
  assert.deepEqual(options.values, []);
  await settled();
  asked[0].answer({ files: ["a"] });
  await settled();
  options.values = [];
  await settled();
  assert.equal(asked.length, 2);
  assert.deepEqual(options.values, ["a"]);
  assert.ok("values" in options);
});
