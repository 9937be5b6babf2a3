// A Node.js process with two native add-ons. The protocol is that of science.py.
"use strict";

// The add-ons are searched from the current directory, because this file is not in the
// installation.
const { createRequire } = require("node:module");
const installed = createRequire(process.cwd() + "/");
const { crc32 } = installed("@node-rs/crc32");
const { xxh64 } = installed("@node-rs/xxhash");

const input = Buffer.alloc(1 << 14, "every byte of it matters");

function compute() {
  const results = new Set();
  for (let round = 0; round < 200; round++) {
    results.add(`${crc32(input)} ${xxh64(input, 7n)}`);
  }
  if (results.size !== 1) throw new Error(`different results: ${[...results]}`);
  return [...results][0];
}

const work = process.argv[2];
const first = compute();
let told = false;

function end() {
  if (compute() !== first) throw new Error("another result");
  console.log(`result ${first}`);
  process.exitCode = 42;
  process.stdin.destroy();
}

function tick() {
  if (told) return end();
  if (compute() !== first) throw new Error("another result");
  console.log("tick");
  setImmediate(tick);
}

process.stdin.once("data", () => {
  told = true;
  if (work === "idle") end();
});
process.stdin.once("end", () => {
  told = true;
});
console.log("ready");
if (work === "once") end();
if (work === "busy") setImmediate(tick);
