"use strict";
// plotly.js takes longer to start than all else: first the page is painted, then this runs.

async function start() {
  const library = document.createElement("script");
  library.textContent = element("plotly").textContent; // allowed by its hash
  document.body.append(library);
  if (!window.Plotly) throw new Error("its charts need plotly.js, which did not run");
  drawCharts();
  if (!facts.explorer) return;
  if (!window.DecompressionStream) throw new Error("this browser cannot unpack its data (it has no DecompressionStream)");
  if (facts.explorer.positions && element("explorer")) await startExplorer(facts.explorer.positions);
  if (facts.explorer.signals && element("signals")) whenSeen(element("signals").parentElement, () => startSignals(facts.explorer.signals).catch(complain));
  performance.mark("explorer-ready");
}

requestAnimationFrame(() => setTimeout(() => start().catch(complain)));
