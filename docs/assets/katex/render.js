// Loads KaTeX, which lies beside this file, on pages that have formulas, and sets them.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const formulas = () => document.querySelectorAll(".arithmatex");
  const set = () => {
    for (const element of formulas()) {
      const text = element.textContent.trim();
      katex.render(text.slice(2, -2), element, { displayMode: text.startsWith("\\["), throwOnError: false });
    }
  };
  const load = () => {
    if (!formulas().length) return;
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = here + "katex.min.css";
    const script = document.createElement("script");
    script.src = here + "katex.min.js";
    script.onload = set;
    document.head.append(style, script);
  };
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", load) : load();
})();
