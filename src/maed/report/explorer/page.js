"use strict";
// What every part of the page uses: its colors, plots that follow them, sortable tables.

const facts = JSON.parse(document.getElementById("data").textContent);
const darkness = matchMedia("(prefers-color-scheme: dark)");
const plots = new Set(); // those that have been drawn
/** An element of the page, of whatever kind. @type {(id: string) => any} */
const element = (id) => document.getElementById(id);

/** The page's colors, which plotly cannot read from the style sheet by itself. */
function colors() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  return Object.fromEntries(["ground", "text", "soft", "line", "panel", "mark"].map((name) => [name, named(name)]));
}

/** What a plot takes from the page's colors, as plotly's `relayout` names it. */
function theme(layout) {
  const { ground, soft, line, text, panel } = colors();
  const update = { paper_bgcolor: ground, plot_bgcolor: ground, "font.color": soft };
  for (const axis of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
    for (const name of ["gridcolor", "linecolor", "zerolinecolor", "tickcolor"]) update[`${axis}.${name}`] = line;
  }
  for (const axis of layout.scene ? ["xaxis", "yaxis", "zaxis"] : []) update[`scene.${axis}.gridcolor`] = line;
  return { ...update, "hoverlabel.bgcolor": panel, "hoverlabel.bordercolor": line, "hoverlabel.font.color": text };
}

/** Draw a plot, or draw it anew. Axes grow to fit their labels, and nothing is dragged: a finger scrolls the page. */
async function draw(node, data, layout) {
  const family = getComputedStyle(document.body).fontFamily;
  const complete = {
    font: { family, size: 12 },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    dragmode: false,
    ...layout,
  };
  for (const axis of ["xaxis", "yaxis"]) complete[axis] = { automargin: true, ...complete[axis] };
  for (const [name, value] of Object.entries(theme(complete))) assign(complete, name.split("."), value);
  await Plotly.react(node, data, complete, { displayModeBar: false, responsive: true });
  plots.add(node);
}

function assign(target, path, value) {
  const last = path.pop();
  for (const name of path) target = target[name] = { ...target[name] };
  target[last] = value;
}

darkness.addEventListener("change", () => plots.forEach((node) => Plotly.relayout(node, theme(node.layout))));

/** Draw when it comes near the window: what nobody looks at costs nothing. */
function whenSeen(node, then) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        then();
      }
    },
    { rootMargin: "300px" },
  );
  observer.observe(node);
}

/** Room for a legend, which takes a line for each entry in a narrow window and would leave the chart none. */
function withLegend(node, data, layout) {
  const entries = data.filter(({ showlegend }) => showlegend !== false).length;
  if (node.clientWidth >= 600 || entries < 4) return layout;
  const height = layout.height + 24 * entries;
  node.style.height = `${height}px`;
  return { ...layout, height };
}

function drawCharts() {
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-chart]"))) {
    const { data, layout } = facts.charts[node.dataset.chart];
    whenSeen(node, () => draw(node, data, withLegend(node, data, layout)));
  }
}

/** Save the plot that is seen beside a button, as it is seen. */
function saveFrom(button) {
  const node = [...button.closest(".plot").querySelectorAll(".canvas")].find((canvas) => plots.has(canvas) && !canvas.hidden);
  const name = node?.id.replace("plot-", "") || `chart-${node?.dataset.chart}`;
  const scale = button.dataset.save === "png" ? 2 : 1;
  if (node) Plotly.downloadImage(node, { format: button.dataset.save, filename: `maed-${name}`, scale });
}

document.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest?.("[data-save]");
  if (button) saveFrom(button);
});

// Tables

/** The number that a cell starts with; durations in seconds; null where there is none. */
function cellNumber(text) {
  const duration = text.match(/^(?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?$/);
  if (duration && text) return 3600 * Number(duration[1] || 0) + 60 * Number(duration[2] || 0) + Number(duration[3] || 0);
  const found = text.replace("−", "-").match(/^[≥<>+]?\s*([-+]?[\d.]+(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1]) : null;
}

/** Cells without a value come last, whichever way the others go. */
function sortTable(table, column, ascending) {
  const body = table.tBodies[0];
  const cells = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].map((row) => ({ row, text: cells(row), number: cellNumber(cells(row)) }));
  const numeric = rows.some(({ number }) => number !== null);
  const missing = ({ number, text }) => (numeric ? number === null : text === "–");
  rows.sort((a, b) => {
    if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b));
    const order = numeric ? a.number - b.number : a.text.localeCompare(b.text);
    return ascending ? order : -order;
  });
  body.append(...rows.map(({ row }) => row));
}

function makeSortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") === "descending" || (!header.hasAttribute("aria-sort") && column === 0);
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortTable(table, column, ascending);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);

/** Say what went wrong where a reader sees it. */
function complain(error) {
  const place = element("trouble");
  place.textContent = `The interactive part of this page did not start: ${error.message || error}`;
  place.hidden = false;
  throw error;
}
