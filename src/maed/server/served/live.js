"use strict";
// A run that is going on: asked for again and again, and shown without loading the page anew.

const EVERY = { "going on": 2000, stopped: 5000, done: 10000, damaged: 5000 }; // milliseconds
let shown = ""; // of the answers, the last

function cells(row) {
  const line = document.createElement("tr");
  row.forEach((text, column) => {
    const cell = document.createElement(column ? "td" : "th");
    if (!column) cell.scope = "row";
    cell.textContent = text || "–";
    line.append(cell);
  });
  return line;
}

function tell(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text; // what is the same is not read out again
}

async function plot(name, chart) {
  element(`figure-${name}`).hidden = !chart;
  if (chart) await draw(element(`plot-${name}`), chart.data, { ...chart.layout, height: undefined });
}

async function show(run) {
  element("state").className = `state ${run.state.replace(" ", "-")}`;
  tell("state", run.state);
  tell("sentence", run.sentence);
  tell("title", run.title || "Losses");
  element("ended").hidden = !run.explorable;
  element("share").hidden = run.share === null;
  if (run.share !== null) element("share").value = run.share;
  element("nothing").hidden = Boolean(run.loss);
  const table = element("parts");
  table.tBodies[0].replaceChildren(...run.rows.map(cells));
  const sorted = table.querySelector("th[aria-sort]");
  if (sorted) sortTable(table, sorted.cellIndex, sorted.ariaSort === "ascending");
  await plot("loss", run.loss);
  await plot("accuracy", run.accuracy);
}

async function look() {
  let wait = EVERY.damaged;
  try {
    const answer = document.hidden && shown ? null : await fetch(facts.live, { cache: "no-store" });
    if (answer && !answer.ok) throw new Error("the run is not there any more");
    const text = answer ? await answer.text() : shown;
    const run = JSON.parse(text);
    wait = EVERY[run.state];
    if (text !== shown) await show(run);
    shown = text;
    element("trouble").hidden = true;
  } catch (error) {
    element("trouble").textContent = `This page is as it was: ${error instanceof TypeError ? "the server does not answer" : error.message}.`;
    element("trouble").hidden = false;
  } finally {
    setTimeout(look, wait);
  }
}

function start() {
  const library = document.createElement("script");
  library.textContent = element("plotly").textContent; // allowed by its hash
  document.body.append(library);
  look();
}

requestAnimationFrame(() => setTimeout(start));
