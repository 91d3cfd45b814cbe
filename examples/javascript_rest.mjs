#!/usr/bin/env node
// Sends a picture through the workflow `image-to-image` over REST. Node 20 or newer, no packages.
//
//     node javascript_rest.mjs PICTURE [OUTPUT_FOLDER]
//
// BRIDGED_URL is the service's address (default http://127.0.0.1:8000), BRIDGED_KEY the API key, where it wants one.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const URL_ = process.env.BRIDGED_URL ?? "http://127.0.0.1:8000";
const KEY = process.env.BRIDGED_KEY;
const clientId = randomUUID(); // one string of our choice belongs to everything that one job needs

/** One request; throws with the service's own words where it refused. */
async function call(method, route, { body, query = {} } = {}) {
  const address = `${URL_}${route}?${new URLSearchParams({ clientId, ...query })}`;
  const json = body !== undefined && !(body instanceof FormData);
  let answer;
  try {
    answer = await fetch(address, {
      method,
      body: json ? JSON.stringify(body) : body,
      headers: {
        ...(json && { "Content-Type": "application/json" }),
        ...(KEY && { Authorization: `Bearer ${KEY}` }),
      },
    });
  } catch (error) {
    throw new Error(`no service answers at ${URL_}: ${error.cause?.code ?? error.message}`);
  }
  if (!answer.ok) {
    const text = await answer.text();
    let detail = text;
    try {
      detail = JSON.parse(text).detail;
    } catch {} // not JSON: then the text says it
    throw new Error(`${method} ${route}: refused with ${answer.status}: ${detail}`);
  }
  return answer.status === 204 ? null : answer.json();
}

async function upload(picture) {
  const form = new FormData();
  form.append("picture", new Blob([await readFile(picture)]), path.basename(picture));
  return (await call("POST", "/upload", { body: form })).picture;
}

/** Shows progress until the job has ended. */
async function waitForEnd() {
  for (;;) {
    const info = await call("GET", "/execution-info");
    if (info.status === "error" || ["failed", "cancelled", "expired"].includes(info.state)) {
      throw new Error(`the job failed: ${info.reason ?? info.detail}`);
    }
    if (info.status === "closed") break;
    if (info.status === "progress") process.stdout.write(`\r${info.detail.padStart(7)}`);
    await sleep(250);
  }
  console.log("\r100.00%");
}

async function main() {
  const [picture, folder = "."] = process.argv.slice(2);
  if (!picture) throw new Error("usage: node javascript_rest.mjs PICTURE [OUTPUT_FOLDER]");
  const job = {
    workflow: "image-to-image",
    "1/image": await upload(picture),
    "2/width": 640,
    "4/blend_factor": 0.8,
  };
  console.log((await call("POST", "/generate-based-workflow", { body: job })).detail);
  process.once("SIGINT", async () => {
    // A REST client says so itself when its jobs are not wanted any more.
    await call("POST", "/interrupt").catch(() => {});
    console.error("\ncancelled");
    process.exit(130);
  });
  await waitForEnd();
  const result = await call("GET", "/history", { query: { resType: "base64" } });
  if (result === null) throw new Error("the job ended with no result");
  await mkdir(folder, { recursive: true });
  for (const file of result.files) {
    const target = path.join(folder, path.basename(file.file_name));
    await writeFile(target, Buffer.from(file.content, "base64"));
    console.log(target);
  }
}

try {
  await main();
  process.exit(0);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
