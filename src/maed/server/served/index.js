"use strict";
// The list of runs: what is ticked is compared, and what has changed is shown without loading the page anew.

const table = element("runs");
const EVERY = 3000; // milliseconds

const ticked = () => [...table.querySelectorAll("tbody tr")].filter((row) => row.querySelector("input").checked).map((row) => row.dataset.run);

function offer() {
  const names = ticked();
  const most = Number(element("compare").dataset.most);
  const fits = names.length >= 2 && names.length <= most;
  element("compare").disabled = !fits;
  element("ticked").textContent = fits ? `${names.length} runs ticked.` : `Tick two to ${most} runs to see them side by side.`;
}

table.addEventListener("change", offer);
element("compare").addEventListener("click", () => location.assign(`/compare?${new URLSearchParams(ticked().map((name) => ["run", name]))}`));
element("comparing").addEventListener("submit", (event) => event.preventDefault());

/** Take the cells that differ from a newer page; ticks, the order and the focus stay. */
function take(newer) {
  const body = table.tBodies[0];
  const mine = new Map([...body.rows].map((row) => [row.dataset.run, row]));
  const theirs = [...newer.querySelectorAll("#runs tbody tr")];
  let changed = false;
  for (const row of theirs) {
    const old = mine.get(row.dataset.run);
    mine.delete(row.dataset.run);
    if (!old) {
      body.append(row);
      changed = true;
      continue;
    }
    [...row.cells].forEach((cell, column) => {
      if (column ? cell.innerHTML === old.cells[column].innerHTML : cell.querySelector("input").disabled === old.querySelector("input").disabled) return;
      old.cells[column].replaceWith(cell.cloneNode(true));
      changed = true;
    });
  }
  mine.forEach((row) => row.remove());
  element("count").textContent = newer.getElementById("count").textContent;
  const sorted = table.querySelector("th[aria-sort]");
  if (changed && sorted) sortTable(table, sorted.cellIndex, sorted.ariaSort === "ascending");
  offer();
}

async function look() {
  try {
    if (document.hidden) return;
    const answer = await fetch("/", { cache: "no-store" });
    take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    element("trouble").hidden = true;
  } catch {
    element("trouble").textContent = "The server does not answer: this list is as it was when it last did.";
    element("trouble").hidden = false;
  } finally {
    setTimeout(look, EVERY);
  }
}

offer();
setTimeout(look, EVERY);
