"use strict";
// Look around: one position is chosen, and every view shows what it says of that one.

const RING = { type: "circle", xsizemode: "pixel", ysizemode: "pixel", layer: "above" };
const SEEN = { neighbors: 8, window: 256, flat: 5000 }; // flat: of more points, the layout is drawn in space alone
const SAID_AFTER = 300; // ms without a move until a screen reader is told

/** Everything that the views read; arrays are unpacked when an estimator or an encoding is first chosen. */
const at = { position: -1, held: false, estimator: null, view: null, space: false, stored: false };

async function startExplorer(positions) {
  const { drawn } = positions;
  at.all = positions;
  at.n = positions.n;
  at.place = await array(drawn.place);
  at.x = await array(drawn.x);
  const points = await array(drawn.xy);
  at.points = points && columns(points, 2);
  at.truth = positions.coordinates && columns(await array(positions.coordinates), positions.coordinates.shape[1]);
  const rgb = await array(positions.colors);
  at.colors = Array.from({ length: at.n }, (_, i) => `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`);
  at.order = trueOrder();
  at.rank = new Uint32Array(at.n);
  at.order.forEach((position, rank) => (at.rank[position] = rank));
  element("explorer").hidden = false;
  element("panel-similarity").hidden = element("panel-matrix").hidden = !positions.estimators.length;
  element("similar").parentElement.hidden = element("of-estimator").hidden = !positions.estimators.length;
  for (const name of ["vectors", "layout", "row"]) element(`panel-${name}`).hidden = !positions.views.length;
  element("close").parentElement.hidden = !positions.views.length;
  at.space = at.n > SEEN.flat;
  element("flat-or-space").hidden = at.space;
  fillControls();
  listen();
  await chooseEstimator();
  await chooseView();
  await choose(middle());
  whenSeen(element("panel-matrix"), async () => { await drawMatrix(); markMatrix(); });
}

/** Positions in the order of the true line, or row by row; as stored where there is no such order. */
function trueOrder() {
  const order = Uint32Array.from({ length: at.n }, (_, i) => i);
  const key = at.place || (at.truth && at.x);
  element("true-or-stored").hidden = !key;
  return key ? order.sort((a, b) => key[a] - key[b]) : order;
}

/** Where to begin: near the middle of what is drawn, off the rim. */
function middle() {
  const { kind, shape } = at.all.drawn;
  if (kind === "image") return at.order[Math.floor(shape[0] * 0.4) * shape[1] + Math.floor(shape[1] * 0.4)];
  return at.order[Math.floor(at.n * 0.4)];
}

// Controls

function fillControls() {
  const { estimators, views, own } = at.all;
  const options = (select, values, shown = (value) => value) => {
    const make = (value) => Object.assign(document.createElement("option"), { value, textContent: shown(value) });
    select.replaceChildren(...values.map(make));
    select.disabled = !values.length;
  };
  const unique = (values) => [...new Set(values.filter(Boolean))];
  const named = (name) => (at.all.baselines.includes(name) ? `${name} (baseline)` : name);
  options(element("estimator"), estimators.map((estimator) => estimator.name), named);
  options(element("encoding"), unique(views.map((view) => view.encoding)), named);
  options(element("reduction"), unique(views.map((view) => view.reduction)));
  if (views.some((view) => view.reduction === own.reduction)) element("reduction").value = own.reduction;
  element("position").max = at.n - 1;
  const { called } = at.all;
  element("of-called").hidden = !called;
  const option = (value) => Object.assign(document.createElement("option"), { value });
  element("all-called").replaceChildren(...(called || []).map(option));
}

async function chooseEstimator() {
  const found = at.all.estimators.find((estimator) => estimator.name === element("estimator").value);
  if (!found) return;
  at.codes = await array(found.codes);
  at.neighbors = await array(found.neighbors);
  at.estimator = found;
  about("similarity", `${titled(found.name)}, drawn ${at.all.drawn.where || "in storage order"}; brighter or higher is more similar.`);
  if (plots.has(element("plot-matrix"))) await drawMatrix();
}

/** The view that fits the controls best: an encoding that no similarity makes has neither estimator nor reduction. */
async function chooseView() {
  const { views, own } = at.all;
  const [encoding, reduction, estimator] = ["encoding", "reduction", "estimator"].map((id) => element(id).value);
  const fitting = views.filter((view) => view.encoding === encoding);
  if (!fitting.length) return;
  const by = (...tests) => tests.map((test) => fitting.find(test)).find(Boolean) || fitting[0];
  const found = by(
    (view) => view.reduction === reduction && view.estimator === estimator,
    (view) => view.reduction === reduction && view.estimator === own.estimator,
    (view) => view.reduction === reduction,
  );
  element("reduction").disabled = !fitting[0].reduction;
  for (const option of element("reduction").options) {
    option.disabled = !fitting.some((view) => view.reduction === option.value || !view.reduction);
  }
  const d = found.vectors.codes.shape[1];
  at.vectors = await numbers(found.vectors);
  at.plane = columns(await numbers(found.plane), 2);
  at.spatial = columns(await numbers(found.space), 3);
  Object.assign(at, { view: found, d });
  const made = found.estimator && found.estimator !== encoding ? `${found.reduction} of ${titled(found.estimator)}` : found.reduction;
  const name = `${titled(encoding)}${made ? `, ${made}` : ""}`;
  about("vectors", `${name}: the nearer a vector of the ${d} channels, the brighter or higher.`);
  const turned = at.truth ? ", turned to match the truth; colors say where a position truly lies" : "; colors say where a position is stored";
  about("layout", `${name}, by ${found.laidOutBy}${turned}.`);
  about("row", `${name}: ${d} channel${d === 1 ? "" : "s"}.`);
  await Promise.all([drawLayout(), drawRow()]);
}

const titled = (name) => (at.all.baselines.includes(name) ? `${name} (baseline)` : name);
const about = (name, text) => (element(`about-${name}`).textContent = text);

function listen() {
  const controls = { estimator: async () => { await chooseEstimator(); await chooseView(); }, encoding: chooseView, reduction: chooseView };
  for (const [id, change] of Object.entries(controls)) {
    element(id).addEventListener("change", async () => { await change(); await choose(at.position, { anew: true }); });
  }
  element("position").addEventListener("input", (event) => choose(at.order[event.target.value]));
  element("called").addEventListener("input", (event) => {
    const found = at.all.called.indexOf(event.target.value);
    if (found >= 0) { choose(found); hold(true); }
  });
  element("hold").addEventListener("click", () => hold(!at.held));
  for (const radio of radios("dimensions")) {
    radio.addEventListener("change", async () => { at.space = radio.value === "3"; await drawLayout(); markSpace(); });
  }
  for (const radio of radios("order")) {
    radio.addEventListener("change", async () => { at.stored = radio.value === "stored"; await drawMatrix(); markMatrix(); });
  }
  for (const name of ["similarity", "vectors", "layout", "matrix"]) {
    element(`plot-${name}`).addEventListener("keydown", pressed);
  }
  element("explorer").addEventListener("keydown", (event) => event.key === "Escape" && hold(false));
  for (const id of ["similar", "close"]) {
    element(id).replaceChildren(...Array.from({ length: Math.min(SEEN.neighbors, at.n - 1) }, neighborItem));
  }
}

/** The buttons of which one is pressed. @type {(name: string) => NodeListOf<HTMLInputElement>} */
const radios = (name) => document.querySelectorAll(`input[name="${name}"]`);

function neighborItem() {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(document.createElement("span"), Object.assign(document.createElement("span"), { className: "value" }));
  button.addEventListener("click", () => { choose(Number(item.dataset.position)); hold(true); });
  item.append(button);
  return item;
}

function hold(held) {
  at.held = held;
  element("hold").setAttribute("aria-pressed", held);
  element("hold").textContent = held ? "Held" : "Hold";
  say();
}

/** Arrow keys move over what is drawn: by cells, along the line, or to the nearest point on that side. */
function pressed(event) {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); hold(!at.held); return; }
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const end = { Home: 0, End: at.n - 1 }[event.key];
  if (!step && end === undefined) return;
  event.preventDefault();
  choose(step ? stepped(...step) : at.order[end]);
}

function stepped(right, down) {
  const { kind, shape } = at.all.drawn;
  const from = waiting ?? at.position; // keys may come faster than frames
  const rank = at.rank[from];
  if (kind === "image") {
    const [row, column] = [Math.floor(rank / shape[1]) + down, (rank % shape[1]) + right];
    const inside = row >= 0 && row < shape[0] && column >= 0 && column < shape[1];
    return inside ? at.order[row * shape[1] + column] : from;
  }
  if (kind === "curve") return at.order[Math.max(0, Math.min(at.n - 1, rank + right + 10 * down))];
  const [x, y] = at.points;
  let [best, least] = [from, Infinity];
  for (let i = 0; i < at.n; i++) {
    const [dx, dy] = [x[i] - x[from], y[i] - y[from]];
    const [along, aside] = right ? [dx * right, dy] : [-dy * down, dx];
    const cost = along + (2 * aside * aside) / along; // straight ahead before nearer but aside
    if (along > 1e-9 && cost < least) [best, least] = [i, cost];
  }
  return best;
}

// One position

/** What it is called: its name, or its place where it has none. */
function placeName(i) {
  const { names, shape } = at.all.drawn;
  if (at.all.called) return at.all.called[i];
  const short = (value) => String(Math.round(value * 100) / 100);
  if (names === "cells") return `row ${Math.floor(at.rank[i] / shape[1])}, column ${at.rank[i] % shape[1]}`;
  if (names === "line") return `place ${short(at.x[i])}`;
  if (names === "coordinates") return `(${at.truth.slice(0, 3).map((column) => short(column[i])).join(", ")})`;
  return `position ${i}`;
}

/** Its row of the similarity, as far as 8 bits tell; its own entry is left out. */
function similarityRow(i) {
  const { levels } = at.estimator;
  const row = new Float32Array(at.n);
  for (let j = 0, from = i * at.n; j < at.n; j++) row[j] = levels[at.codes[from + j]];
  row[i] = NaN;
  return row;
}

/** Minus the distance of every vector from its own. */
function closenessRow(i) {
  const { vectors, d, n } = at;
  const row = new Float32Array(n);
  for (let j = 0; j < n; j++) {
    let sum = 0;
    for (let c = 0, a = i * d, b = j * d; c < d; c++) sum += (vectors[a + c] - vectors[b + c]) ** 2;
    row[j] = -Math.sqrt(sum);
  }
  row[i] = NaN;
  return row;
}

/** Tells of a position whether it is one of the true neighbors of `i`; nothing where no truth is known. */
function truthOf(i) {
  if (!at.truth) return () => false;
  const distances = Float32Array.from({ length: at.n }, (_, j) => -Math.hypot(...at.truth.map((column) => column[j] - column[i])));
  const farthest = distances[largest(distances, at.all.k, i).at(-1)];
  return (j) => distances[j] >= farthest - 1e-5;
}

let waiting = null; // the position that is shown next: of many moves within one frame, the last

/** Show another position; `anew` draws even the same. */
function choose(position, { anew = false } = {}) {
  if (position === undefined || (position === (waiting ?? at.position) && !anew)) return Promise.resolve();
  if (waiting !== null) { waiting = position; return Promise.resolve(); }
  waiting = position;
  const asked = performance.now();
  return new Promise((done, failed) => {
    requestAnimationFrame(() => {
      at.position = waiting;
      waiting = null;
      show().then(() => { performance.measure("explorer-shown", { start: asked }); done(); }, failed);
    });
  }).catch(complain);
}

let told = 0;

async function show() {
  const i = at.position;
  const isTrue = truthOf(i);
  const updates = [];
  if (at.estimator) {
    const row = similarityRow(i);
    at.similar = Array.from(at.neighbors.subarray(i * at.estimator.neighbors.shape[1], (i + 1) * at.estimator.neighbors.shape[1]));
    updates.push(drawMap("similarity", row, at.similar, "similarity"));
    list("similar", at.similar, row, isTrue, (value) => value.toPrecision(3));
  }
  if (at.view) {
    const row = closenessRow(i);
    at.close = largest(row, SEEN.neighbors, i);
    updates.push(drawMap("vectors", row, at.close, "minus distance"));
    list("close", at.close, row, isTrue, (value) => (-value).toPrecision(3));
    updates.push(Plotly.restyle("plot-row", { y: [rowValues()] }, [0]));
    if (!at.space) updates.push(Plotly.relayout("plot-layout", { shapes: rings(at.plane, at.close) }));
  }
  element("position").value = at.rank[i];
  element("position").setAttribute("aria-valuetext", placeName(i));
  await Promise.all(updates);
  clearTimeout(told);
  told = setTimeout(() => { say(); markSpace(); markMatrix(); }, SAID_AFTER);
}

function say() {
  const names = (found) => found.slice(0, 4).map(placeName).join("; ");
  const place = at.all.drawn.names === "stored" && !at.all.called ? "" : `, ${placeName(at.position)}`;
  const parts = [`Position ${at.position}${place}${at.held ? ", held" : ""}.`];
  if (at.similar) parts.push(`Most similar by ${titled(at.estimator.name)}: ${names(at.similar)}.`);
  if (at.close) parts.push(`Nearest vectors: ${names(at.close)}.`);
  element("here").textContent = parts.join(" ");
}

function list(id, found, row, isTrue, text) {
  [...element(id).children].forEach((item, rank) => {
    const j = found[rank];
    const [name, value] = item.firstChild.children;
    item.dataset.position = j;
    name.textContent = placeName(j);
    value.textContent = text(row[j]);
    item.className = isTrue(j) ? "true" : "";
  });
  const known = at.truth ? `✓: among its ${at.all.k} true nearest${at.all.k > 1 ? "" : " one"}. ` : "";
  about("neighbors", `${known}Numbers are similarities, and distances of vectors.`);
}

// Maps

/** A value for each position: an image, a curve or points, with the position and its neighbors marked. */
function drawMap(name, row, neighbors, quantity) {
  const node = element(`plot-${name}`);
  const kind = at.all.drawn.kind;
  if (!plots.has(node)) return firstMap(node, row, neighbors, quantity).then(() => follow(node, kind));
  const [low, high] = robustLimits(row);
  if (kind === "image") return Plotly.update(node, { z: [image(row)], zmin: low, zmax: high }, { shapes: mapMarks(neighbors) }, [0]);
  if (kind === "points") {
    return Plotly.update(node, { "marker.color": [filled(row, low)], "marker.cmin": low, "marker.cmax": high }, { shapes: mapMarks(neighbors) }, [0]);
  }
  const { x, y, range, label } = curve(row);
  const text = label.hovertext ? { hovertext: [label.hovertext] } : {};
  return Plotly.update(node, { x: [x], y: [y], ...text }, { shapes: mapMarks(neighbors), "xaxis.range": range }, [0]);
}

function firstMap(node, row, neighbors, quantity) {
  const { kind, shape, axis } = at.all.drawn;
  const [low, high] = robustLimits(row);
  const shapes = mapMarks(neighbors);
  const bare = { visible: false, constrain: "domain", fixedrange: true };
  if (kind === "image") {
    const data = [{ type: "heatmap", z: image(row), zmin: low, zmax: high, colorscale: "Viridis", showscale: false, hoverinfo: "none" }];
    return draw(node, data, { xaxis: bare, yaxis: { ...bare, autorange: "reversed", scaleanchor: "x" }, shapes, meta: shape });
  }
  if (kind === "points") {
    const marker = { color: filled(row, low), colorscale: "Viridis", cmin: low, cmax: high, size: dotSize(45000) };
    const data = [{ ...dots(at.points), marker }];
    return draw(node, data, { hovermode: "closest", xaxis: bare, yaxis: { ...bare, scaleanchor: "x" }, shapes });
  }
  const { x, y, range, label } = curve(row);
  const data = [{ type: "scatter", mode: "lines", x, y, line: { color: "#0072B2", width: 1.5 }, ...label }];
  const still = { automargin: false, zeroline: false, fixedrange: true }; // a margin that grew would move what is pointed at
  const xaxis = { ...still, title: { text: axis }, range };
  const yaxis = { ...still, title: { text: quantity }, nticks: 6 };
  return draw(node, data, { hovermode: "x", margin: { l: 64, r: 12, t: 8, b: 48 }, xaxis, yaxis, shapes });
}

/** Values `(N,)` as the rows of an image. */
function image(row) {
  const [height, width] = at.all.drawn.shape;
  const cells = new Float32Array(at.n);
  for (let i = 0; i < at.n; i++) cells[at.place[i]] = row[i];
  return Array.from({ length: height }, (_, r) => cells.subarray(r * width, (r + 1) * width));
}

/** Values along the line; of a long one, the part around the chosen position. */
function curve(row) {
  at.window = shownRanks(at.window);
  const shown = at.order.subarray(...at.window);
  const take = (values) => Float32Array.from(shown, (i) => values[i]);
  const [x, y] = [take(at.x), take(row)];
  // Without a value of its own, the chosen position could not be pointed at, and the nearest other one would be chosen.
  const own = at.rank[at.position] - at.window[0];
  const beside = [y[own - 1], y[own + 1]].filter((value) => value !== undefined);
  y[own] = beside.reduce((sum, value) => sum + value, 0) / beside.length;
  return { x, y, range: [x[0], x[x.length - 1]], label: named(shown) };
}

const filled = (row, low) => row.map((value) => (Number.isNaN(value) ? low : value)); // it is ringed

/** How points are drawn, and how large. Not by plotly's scattergl: it evaluates text, which the page's policy refuses. */
function dots([x, y]) {
  return { type: "scatter", mode: "markers", x, y, ...named() };
}

/** What is written beside the mouse: names, where positions have any. Plotly reads some HTML in them, so it is escaped. */
function named(order = null) {
  const { called } = at.all;
  if (!called) return { hoverinfo: "none" };
  const text = called.map((name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"));
  return { hoverinfo: "text", hovertext: order ? Array.from(order, (i) => text[i]) : text };
}
const dotSize = (area) => Math.max(2, Math.min(11, Math.sqrt(area / at.n)));

/** The ranks of a line that are drawn: kept while the chosen position is among them, or pointing at it would move it. */
function shownRanks(now) {
  if (at.n <= SEEN.window) return [0, at.n];
  const rank = at.rank[at.position];
  if (now && rank >= now[0] && rank < now[1]) return now;
  const start = Math.max(0, Math.min(at.n - SEEN.window, rank - SEEN.window / 2));
  return [start, start + SEEN.window];
}

function mapMarks(neighbors) {
  const { kind, shape } = at.all.drawn;
  if (kind === "points") return rings(at.points, neighbors);
  if (kind === "image") {
    const [x, y] = [(i) => at.place[i] % shape[1], (i) => Math.floor(at.place[i] / shape[1])];
    return [...neighbors.map((j) => ring(x(j), y(j), "#ffffff")), ring(x(at.position), y(at.position))];
  }
  const upright = (j, chosen) => ({
    type: "line", x0: at.x[j], x1: at.x[j], yref: "paper", y0: 0, y1: chosen ? 1 : 0.06,
    line: { color: colors().mark, width: chosen ? 1.5 : 2 }, layer: "below",
  });
  return [...neighbors.map((j) => upright(j, false)), upright(at.position, true)];
}

function rings([x, y], neighbors) {
  const { text } = colors();
  return [...neighbors.map((j) => ring(x[j], y[j], text)), ring(x[at.position], y[at.position])];
}

/** The chosen position has a thick ring in the color of marks, its neighbors thin ones in `color`. */
function ring(x, y, color = null) {
  const r = color ? 4.5 : 7;
  const line = color ? { color, width: 1.5 } : { color: colors().mark, width: 3 };
  return { ...RING, xanchor: x, yanchor: y, x0: -r, x1: r, y0: -r, y1: r, line };
}

/** A plot in which a position is pointed at: hover shows it, unless one is held; a click or tap holds it. */
function follow(node, kind) {
  const pointed = ({ points: [point] }) => {
    if (point.curveNumber !== 0 && kind !== "mesh") return undefined;
    if (kind === "image") return at.order[Math.round(point.y) * at.all.drawn.shape[1] + Math.round(point.x)];
    return kind === "curve" ? at.order[at.window[0] + point.pointNumber] : point.pointNumber;
  };
  node.on("plotly_hover", (event) => at.held || choose(pointed(event)));
  node.on("plotly_click", (event) => {
    const position = pointed(event);
    if (position === undefined) return;
    const same = position === at.position && at.held;
    choose(position);
    hold(!same);
  });
}

// The layout, in the plane and in space

async function drawLayout() {
  const [flat, space] = [element("plot-layout"), element("plot-space")];
  flat.hidden = at.space;
  space.hidden = !at.space;
  if (at.space) return drawSpace(space);
  const bare = { visible: false, constrain: "domain", fixedrange: true };
  const mesh = meshOf(at.plane);
  const marker = { color: at.colors, size: dotSize(20000) };
  const data = [...(mesh ? [mesh] : []), { ...dots(at.plane), marker }];
  const shapes = at.close ? rings(at.plane, at.close) : [];
  const first = !plots.has(flat);
  await draw(flat, data, { hovermode: "closest", showlegend: false, xaxis: bare, yaxis: { ...bare, scaleanchor: "x" }, shapes });
  if (first) follow(flat, "mesh");
}

/** Lines between true neighbors of a grid: an even mesh means that the geometry was found. */
function meshOf([x, y, z]) {
  const { kind, shape, where } = at.all.drawn;
  if (kind !== "image" || where.includes("torus") || at.n > 2500) return null;
  const lines = { x: [], y: [], z: [] };
  const add = (i) => { lines.x.push(x[i]); lines.y.push(y[i]); if (z) lines.z.push(z[i]); };
  const cut = () => Object.values(lines).forEach((line) => line.push(null));
  const [height, width] = shape;
  for (let r = 0; r < height; r++) { for (let c = 0; c < width; c++) add(at.order[r * width + c]); cut(); }
  for (let c = 0; c < width; c++) { for (let r = 0; r < height; r++) add(at.order[r * width + c]); cut(); }
  const type = z ? "scatter3d" : "scatter";
  return { type, mode: "lines", ...lines, line: { color: "#8a8a8a", width: 1 }, opacity: z ? 0.5 : 0.6, hoverinfo: "skip" };
}

async function drawSpace(node) {
  const first = !plots.has(node);
  const [x, y, z] = at.spatial;
  const axis = { showticklabels: false, title: { text: "" }, showspikes: false, zeroline: false, showbackground: false };
  const scene = { xaxis: { ...axis }, yaxis: { ...axis }, zaxis: { ...axis }, aspectmode: "data", dragmode: "orbit", camera: { eye: { x: 0.5, y: -1.3, z: 1.5 } } };
  const mesh = meshOf(at.spatial);
  const points = { type: "scatter3d", mode: "markers", x, y, z, marker: { color: at.colors, size: at.n > 5000 ? 2 : 4 }, ...named() };
  const marks = { type: "scatter3d", mode: "markers", x: [], y: [], z: [], marker: { size: 9, opacity: 0.9 }, hoverinfo: "skip" };
  await draw(node, [points, marks, ...(mesh ? [mesh] : [])], { scene, showlegend: false, margin: { l: 0, r: 0, t: 0, b: 0 } });
  if (first) follow(node, "points");
}

/** WebGL draws space anew for each mark: only when the hand rests. */
function markSpace() {
  const node = element("plot-space");
  if (!at.space || !plots.has(node) || !at.close) return;
  const shown = [...at.close, at.position];
  const [x, y, z] = at.spatial.map((column) => shown.map((i) => column[i]));
  const { mark, text } = colors();
  const color = shown.map((i) => (i === at.position ? mark : text));
  Plotly.restyle(node, { x: [x], y: [y], z: [z], "marker.color": [color] }, [1]);
}

// Its vector, and the whole matrix

const rowValues = () => (at.position < 0 ? [] : at.vectors.slice(at.position * at.d, (at.position + 1) * at.d));

function drawRow() {
  const most = at.vectors.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const x = Array.from({ length: at.d }, (_, c) => c + 1);
  const data = [{ type: "bar", x, y: rowValues(), marker: { color: "#0072B2", line: { width: 0 } }, hovertemplate: "channel %{x}: %{y:.3f}<extra></extra>" }];
  const xaxis = { title: { text: "channel" }, showgrid: false, fixedrange: true, range: [0.4, at.d + 0.6], tickformat: "d", nticks: 9 };
  return draw(element("plot-row"), data, { bargap: 0.15, xaxis, yaxis: { range: [-most, most], fixedrange: true, nticks: 6, title: { text: "value" } } });
}

const FINEST = 512; // cells of a side of the matrix that are drawn; more are averaged

async function drawMatrix() {
  if (!at.estimator) return;
  const { n, codes } = at;
  const { levels } = at.estimator;
  const step = Math.ceil(n / FINEST);
  const side = Math.floor(n / step);
  const order = at.stored ? null : at.order;
  const cells = Array.from({ length: side }, () => new Float32Array(side));
  for (let r = 0; r < side * step; r++) {
    const from = (order ? order[r] : r) * n;
    const row = cells[Math.floor(r / step)];
    for (let c = 0; c < side * step; c++) {
      const j = order ? order[c] : c;
      if (from / n !== j) row[Math.floor(c / step)] += levels[codes[from + j]];
    }
  }
  for (const row of cells) for (let c = 0; c < side; c++) row[c] /= step * step;
  const [low, high] = robustLimits(Float32Array.from({ length: Math.min(65536, side * side) }, (_, k) => cells[(k * 31) % side][(k * 17 + Math.floor(k / side)) % side]));
  const data = [{ type: "heatmap", z: cells, x0: (step - 1) / 2, dx: step, y0: (step - 1) / 2, dy: step, zmin: low, zmax: high, colorscale: "Viridis", showscale: false, hoverinfo: "none" }];
  const bare = { visible: false, constrain: "domain", fixedrange: true };
  const node = element("plot-matrix");
  const first = !plots.has(node);
  await draw(node, data, { xaxis: bare, yaxis: { ...bare, autorange: "reversed", scaleanchor: "x" } });
  const isStored = at.stored || element("true-or-stored").hidden;
  const known = isStored ? "in the order in which positions are stored" : "in true order";
  const averaged = step > 1 ? `; a cell is the mean of ${step} × ${step} entries` : "";
  about("matrix", `${titled(at.estimator.name)}: row i, column j says how much seeing i tells about j, ${known}${averaged}.`);
  if (first) {
    const pointed = ({ points: [{ y }] }) => (at.stored ? Math.round(y) : at.order[Math.round(y)]);
    node.on("plotly_hover", (event) => at.held || choose(pointed(event)));
    node.on("plotly_click", (event) => { choose(pointed(event)); hold(true); });
  }
}

function markMatrix() {
  const node = element("plot-matrix");
  if (!plots.has(node) || at.position < 0) return;
  const place = at.stored ? at.position : at.rank[at.position];
  const line = { color: colors().mark, width: 1 };
  const [first, last] = [-0.5, at.n - 0.5];
  const across = { type: "line", x0: first, x1: last, y0: place, y1: place, line };
  const down = { type: "line", x0: place, x1: place, y0: first, y1: last, line };
  Plotly.relayout(node, { shapes: [across, down] });
}
