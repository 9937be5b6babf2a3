# Deno: V8 with its own executable memory, a library called by FFI, workers.
# needs: deno cc
# pinned: /deno
# pinned: /libsquares\.so
# results: 5
cat >squares.c <<'C'
static int square(int x) { return x * x; }
static int (*volatile table[])(int) = {square};
int call(int x);
int call(int x) { return table[0](x); }
C
cc -shared -fPIC -o libsquares.so squares.c
cat >work.ts <<'C'
const library = Deno.dlopen("./libsquares.so", { call: { parameters: ["i32"], result: "i32" } });
let sum = 0;
for (let i = 0; i < 300000; i++) sum = (sum + library.symbols.call(i)) | 0;
console.log("ffi", sum);
const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("sopin")));
console.log("digest", [...digest].map((b) => b.toString(16).padStart(2, "0")).join(""));
const code = new Uint8Array([0,97,115,109,1,0,0,0,1,6,1,96,1,127,1,127,3,2,1,0,7,5,1,1,102,0,0,10,9,1,7,0,32,0,32,0,108,11]);
const { instance } = await WebAssembly.instantiate(code);
console.log("wasm", (instance.exports.f as (x: number) => number)(1234));
const worker = new Worker(URL.createObjectURL(new Blob(["postMessage([1,2,3].map(x=>x*x).join())"])), { type: "module" });
console.log("worker", await new Promise((resolve) => (worker.onmessage = (event) => resolve(event.data))));
worker.terminate();
const child = await new Deno.Command("echo", { args: ["child"] }).output();
console.log("child", new TextDecoder().decode(child.stdout).trim());
library.close();
C
export DENO_DIR="$WORK/deno" NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
deno run --allow-all --no-check work.ts
