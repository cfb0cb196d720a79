"use strict";
// Arrays that lie in the page as base64 of gzip, unpacked when they are first needed.

const unpacked = new Map();
const ARRAY_TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };

async function unpack({ block, type }) {
  const binary = atob(element(block).textContent);
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new ARRAY_TYPES[type](await new Response(stream).arrayBuffer());
}

/** The array that a reference stands for; null for none. */
function array(reference) {
  if (!reference) return Promise.resolve(null);
  if (!unpacked.has(reference.block)) unpacked.set(reference.block, unpack(reference));
  return unpacked.get(reference.block);
}

/** Numbers that were stored as codes on one scale, as they were but for rounding. */
async function numbers({ codes, scale, middle }) {
  return Float32Array.from(await array(codes), (code) => (code - middle) * scale);
}

/** Every column of rows of `width` numbers. */
function columns(values, width) {
  return Array.from({ length: width }, (_, c) => Float32Array.from({ length: values.length / width }, (_, i) => values[i * width + c]));
}

/** Indices of the `k` largest of `values`, largest first; `skip` and what is not a number are passed over. */
function largest(values, k, skip) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (i === skip || Number.isNaN(value) || !(found.length < k || value > values[found[k - 1]])) continue;
    let at = Math.min(found.length, k - 1);
    while (at > 0 && values[found[at - 1]] < value) found[at] = found[--at];
    found[at] = i;
  }
  return found;
}

/** A color scale that a few extreme values cannot flatten. */
function robustLimits(values) {
  const step = Math.max(1, Math.floor(values.length / 4096));
  const sample = values.filter((value, i) => i % step === 0 && !Number.isNaN(value)).sort();
  const at = (share) => sample[Math.round(share * (sample.length - 1))];
  return [at(0.01), at(0.995)];
}
