"use strict";
// Reconstructions: step through signals, and drag how much of them the autoencoder was shown.

async function startSignals(signals) {
  const state = { signal: 0, fraction: signals.trained };
  const kinds = { images: imageOf, curves: curveOf, texts: textOf };
  const arrays = {};
  for (const name of ["place", "x", "visible", "original", "reconstruction"]) {
    if (signals[name]) arrays[name] = signals[name].codes ? await numbers(signals[name]) : await array(signals[name]);
  }
  if (signals.texts) arrays.texts = JSON.parse(new TextDecoder().decode(await array(signals.texts)));
  const show = () => {
    const { signal, fraction } = state;
    const shown = signals.shown[fraction][signal];
    element("which").textContent = `${signal + 1} of ${signals.count}`;
    const share = `${percentText(signals.fractions[fraction])}${fraction === signals.trained ? ", as it was trained" : ""}`;
    element("share").textContent = share;
    element("fraction").setAttribute("aria-valuetext", share);
    const score = signals.right
      ? `${percentText(signals.right[fraction][signal])} of the hidden ones were guessed right`
      : `the hidden ones are off by ${Math.sqrt(signals.error[fraction][signal]).toPrecision(3)} (root mean square)`;
    element("about-signals").textContent = `${shown.toLocaleString("en")} of ${signals.n.toLocaleString("en")} positions were shown; ${score}.`;
    return kinds[signals.kind](signals, arrays, signal, fraction);
  };
  const step = (by) => { state.signal = (state.signal + by + signals.count) % signals.count; show(); };
  element("signals").hidden = false;
  element("plot-signals").hidden = signals.kind === "texts";
  element("texts").hidden = signals.kind !== "texts";
  element("signals").querySelector(".save").hidden = signals.kind === "texts";
  element("fraction").max = signals.fractions.length - 1;
  element("fraction").value = state.fraction;
  element("fraction").closest("label").hidden = signals.fractions.length < 2;
  element("fraction").addEventListener("input", (event) => { state.fraction = Number(event.target.value); show(); });
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  await show();
}

/** As per cent; of small shares, digits enough to tell them apart. */
function percentText(share) {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2))} %`;
}

const NAMES = ["shown", "reconstructed", "original"];

/** Three images side by side. */
function imageOf(signals, { place, visible, original, reconstruction }, signal, fraction) {
  const [height, width] = signals.shape;
  const channels = signals.original.shape[2];
  const first = signal * signals.n;
  const second = (fraction * signals.visible.shape[1] + signal) * signals.n;
  const paint = (values, from, alpha) => {
    const rows = Array.from({ length: height }, () => new Array(width));
    for (let i = 0; i < signals.n; i++) {
      const pixel = [0, 1, 2].map((c) => values[(from + i) * channels + Math.min(c, channels - 1)]);
      rows[Math.floor(place[i] / width)][place[i] % width] = alpha(i) ? [...pixel, 1] : [128, 128, 128, 0.18];
    }
    return rows;
  };
  const pictures = [
    paint(original, first, (i) => visible[second + i]),
    paint(reconstruction, second, () => true),
    paint(original, first, () => true),
  ];
  const layout = { margin: { l: 0, r: 0, t: 24, b: 0 }, annotations: [] };
  const data = pictures.map((z, k) => {
    const suffix = k ? k + 1 : "";
    const domain = [k * 0.345, k * 0.345 + 0.31];
    layout[`xaxis${suffix}`] = { visible: false, domain, constrain: "domain", fixedrange: true };
    layout[`yaxis${suffix}`] = { visible: false, scaleanchor: `x${suffix}`, constrain: "domain", constraintoward: "top", fixedrange: true, autorange: "reversed", anchor: `x${suffix}` };
    layout.annotations.push({ text: NAMES[k], x: domain[0] + 0.155, y: 1, xref: "paper", yref: "paper", xanchor: "center", yanchor: "bottom", showarrow: false });
    return { type: "image", z, colormodel: "rgba", xaxis: `x${suffix}`, yaxis: `y${suffix}`, hoverinfo: "skip" };
  });
  const node = element("plot-signals");
  node.style.height = `${Math.min(380, (node.clientWidth * 0.31 * height) / width + 26)}px`;
  return draw(node, data, layout);
}

/** The original, what was made of it, and dots where it was shown. */
function curveOf(signals, { x, visible, original, reconstruction }, signal, fraction) {
  const n = signals.n;
  const order = Array.from(x.keys()).sort((a, b) => x[a] - x[b]);
  const second = (fraction * signals.visible.shape[1] + signal) * n;
  const seen = order.filter((i) => visible[second + i]);
  const take = (values, from, which) => which.map((i) => values[from + i]);
  const line = { type: "scatter", mode: "lines", x: take(x, 0, order) };
  const data = [
    { ...line, y: take(original, signal * n, order), name: "original", line: { color: "#8a8a8a", width: 1.5 } },
    { ...line, y: take(reconstruction, second, order), name: "reconstructed", line: { color: "#D55E00", width: 2 } },
    { type: "scatter", mode: "markers", x: take(x, 0, seen), y: take(original, signal * n, seen), name: "shown", marker: { color: "#0072B2", size: 7 } },
  ];
  const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" };
  const layout = { hovermode: "x unified", legend, xaxis: { title: { text: signals.axis }, fixedrange: true }, yaxis: { title: { text: "value" }, fixedrange: true } };
  element("plot-signals").style.height = "340px";
  return draw(element("plot-signals"), data, layout);
}

/** Marked text: what was hidden, and which guesses were right. */
function textOf(signals, { texts }, signal, fraction) {
  const list = document.createElement("dl");
  list.className = "text";
  for (const [name, pieces] of Object.entries(texts[fraction][signal])) {
    const content = document.createElement("dd");
    content.append(...pieces.map(([mark, text]) => Object.assign(document.createElement("span"), { className: mark, textContent: text })));
    list.append(Object.assign(document.createElement("dt"), { textContent: name }), content);
  }
  const key = Object.assign(document.createElement("p"), { className: "caption" });
  const marked = (className, textContent) => Object.assign(document.createElement("span"), { className, textContent });
  key.append("A dot is a hidden position. ", marked("guessed", "Guessed right"), ", ", marked("wrong", "guessed wrong"), "; a small square is a byte that cannot be printed.");
  element("texts").replaceChildren(list, key);
}
