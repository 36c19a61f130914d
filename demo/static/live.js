/* One live region for screen readers: says the lines of `.aj-live` as they change, but a line that
   only counts on (the same words with other numbers) at most every ten seconds. */
(() => {
  const region = document.createElement("div");
  region.setAttribute("role", "status");
  region.className = "aj-unseen";
  let words = "", said = 0;

  function say(text) {
    const bare = text.replace(/[\d.]+/g, "#");
    if (!text || (bare === words && Date.now() - said < 10000)) return;
    words = bare;
    said = Date.now();
    region.textContent = text;
  }

  new MutationObserver((changes) => {
    for (const change of changes) {
      const element = change.target.nodeType === 1 ? change.target : change.target.parentElement;
      const live = element && element.closest(".aj-live");
      if (live) say([...live.querySelectorAll(".aj-note, h3")].map((n) => n.textContent).join(" "));
    }
  }).observe(document.documentElement, { subtree: true, childList: true, characterData: true });

  addEventListener("DOMContentLoaded", () => document.body.append(region));
  if (document.body) document.body.append(region);
})();
