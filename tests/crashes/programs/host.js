// Calls the function of the plug-in that a line names. It ends at the end of the input.
"use strict";

const module_ = { exports: {} };
process.dlopen(module_, process.cwd() + "/plug.so");
const plug = module_.exports;

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => console.log(plug[line]()));
console.log("ready");
