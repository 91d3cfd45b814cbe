#!/usr/bin/env node
// Sends a picture through the workflow `image-to-image` and follows it over a WebSocket.
//
//     npm install ws        (Node 20 and 21; from 22 on, Node has a WebSocket of its own)
//     node javascript_websocket.mjs PICTURE [OUTPUT_FOLDER]
//
// BRIDGED_URL is the service's address (default http://127.0.0.1:8000), BRIDGED_KEY the API key, where it wants one.
// Ending this program cancels its job: the service takes back what a client wanted when its WebSocket goes away.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { randomUUID } from "node:crypto";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
const URL_ = process.env.BRIDGED_URL ?? "http://127.0.0.1:8000";
const KEY = process.env.BRIDGED_KEY;
const authorization = KEY ? { Authorization: `Bearer ${KEY}` } : {}; // a web page has no headers for WebSockets: ?key=…
const client = `clientId=${randomUUID()}`; // one string of our choice belongs to everything that one job needs

/** The answer; throws with the service's own words where it refused. */
async function call(route, { headers, ...options } = {}) {
  const answer = await fetch(`${URL_}${route}`, { ...options, headers: { ...headers, ...authorization } });
  if (!answer.ok) {
    const text = await answer.text();
    let detail = text;
    try {
      detail = JSON.parse(text).detail;
    } catch {} // not JSON: then the text says it
    throw new Error(`${route.split("?")[0]}: refused with ${answer.status}: ${detail}`);
  }
  return answer;
}

/** An open socket, and a promise that is kept when the last job has ended and broken where one failed. */
function connect() {
  const socket = new WebSocket(`${URL_.replace("http", "ws")}/ws?${client}`, { headers: authorization });
  const ended = new Promise((resolve, reject) => {
    socket.addEventListener("message", ({ data }) => {
      const { status, detail } = JSON.parse(data);
      if (status === "progress") process.stdout.write(`\r${detail.padStart(7)}`);
      if (status === "error") reject(new Error(`\nthe job failed: ${detail}`));
      if (status === "closed") resolve();
    });
    socket.addEventListener("close", () => reject(new Error("\nthe service closed the connection too early")));
  });
  ended.catch(() => {}); // it is awaited below, perhaps later than it fails
  const open = new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", () => reject(new Error(`no service answers at ${URL_}, or not with this BRIDGED_KEY`)));
  });
  return { open, ended };
}

async function main() {
  const [picture, folder = "."] = process.argv.slice(2);
  if (!picture) throw new Error("usage: node javascript_websocket.mjs PICTURE [OUTPUT_FOLDER]");
  const content = await readFile(picture);
  const { open, ended } = connect();
  await open;

  const form = new FormData();
  form.append("picture", new Blob([content]), path.basename(picture));
  const tokens = await (await call(`/upload?${client}`, { method: "POST", body: form })).json();
  const job = { workflow: "image-to-image", "1/image": tokens.picture, "2/width": 640, "4/blend_factor": 0.8 };
  const queued = await call(`/generate-based-workflow?${client}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(job),
  });
  console.log((await queued.json()).detail);
  await ended;
  console.log();

  const result = await call(`/history?${client}&resType=base64`);
  if (result.status === 204) throw new Error("the job ended with no result");
  await mkdir(folder, { recursive: true });
  for (const file of (await result.json()).files) {
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
