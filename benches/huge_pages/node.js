// A worker of measure.py: node.js TYPESCRIPT_MODULE, the TypeScript compiler on a small program.
const ts = require(process.argv[2]);
const text = "const numbers: number[] = [1, 2, 3]; export const words = numbers.map(String).join();\n".repeat(300);

require("readline").createInterface({ input: process.stdin }).on("line", () => {
    for (let index = 0; index < 1; index++) {
        ts.transpileModule(text, { compilerOptions: { target: "es2015" } });
        JSON.parse(JSON.stringify(text.split(";")));
        text.match(/\w+ = [^;]+/g);
        new (require("vm").Script)(`(function () { /* ${Math.random()} */ ${"f(1, x => x + 1);".repeat(3000)} })`);
        require("zlib").deflateSync(text);
    }
    console.log("done");
});
