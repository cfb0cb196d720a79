// The functions of the pages' scripts that only compute; `make scripts` runs them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import vm from "node:vm";

const folder = new URL("../../src/maed/report/explorer/", import.meta.url);
const blocks = {};
const nothing = { addEventListener() {} };
const page = vm.createContext({
  document: { ...nothing, getElementById: (id) => ({ textContent: blocks[id] ?? "{}" }), querySelectorAll: () => [] },
  matchMedia: () => nothing,
  atob, Blob, DecompressionStream, Response, Uint8Array, Uint16Array, Uint32Array, Float32Array,
});
for (const name of ["page.js", "arrays.js", "signals.js"]) vm.runInContext(readFileSync(new URL(name, folder), "utf8"), page);
const call = (name, ...values) => vm.runInContext(name, page)(...values);

test("the largest come first, without the one that is passed over and without what is no number", () => {
  const values = Float32Array.from([3, NaN, 9, 1, 7, 9, 2]);
  assert.deepEqual([...call("largest", values, 3, 2)], [5, 4, 0]);
  assert.deepEqual([...call("largest", values, 99, -1)], [2, 5, 4, 0, 6, 3]);
  assert.deepEqual([...call("largest", new Float32Array(0), 3, 0)], []);
});

test("columns of rows", () => {
  const found = call("columns", Float32Array.from([1, 2, 3, 4, 5, 6]), 2);
  assert.deepEqual([...found].map((column) => [...column]), [[1, 3, 5], [2, 4, 6]]);
});

test("a few extreme values do not flatten a color scale", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => i);
  values[0] = -1e9;
  values[1] = 1e9;
  values[2] = NaN;
  const [low, high] = call("robustLimits", values);
  assert.ok(low >= 0 && low < 20);
  assert.ok(high > 980 && high < 1000);
});

test("cells are sorted by the number that they start with, durations by their seconds", () => {
  const number = (text) => call("cellNumber", text);
  assert.equal(number("95.1 % [94.0, 96.2]"), 95.1);
  assert.equal(number("−0.25"), -0.25);
  assert.equal(number("≥ 3"), 3);
  assert.equal(number("1e-3"), 0.001);
  assert.equal(number("2 h 5 min"), 7500);
  assert.equal(number("3 min 20 s"), 200);
  assert.equal(number("1.5 s"), 1.5);
  assert.equal(number("–"), null);
  assert.equal(number(""), null);
});

test("small shares have digits enough to tell them apart", () => {
  assert.deepEqual([0.5, 0.0123, 0.01, 1].map((share) => call("percentText", share)), ["50 %", "1.2 %", "1 %", "100 %"]);
});

test("numbers that were stored as codes come back", async () => {
  blocks.codes = gzipSync(Uint8Array.from([0, 128, 255])).toString("base64");
  const found = await call("numbers", { codes: { block: "codes", type: "u8" }, scale: 0.5, middle: 128 });
  assert.deepEqual([...found], [-64, 0, 63.5]);
  assert.equal(await call("array", null), null);
});
