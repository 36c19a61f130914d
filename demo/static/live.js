/* A live region for screen readers, which repeats the lines of `.aj-live` when they change. A line
   that changes only in its numbers is repeated at most every ten seconds. */
(() => {
  const region = document.createElement("div");
  region.setAttribute("role", "status");
  region.className = "aj-unseen";
  let words = "", spoken = 0;

  function say(text) {
    const bare = text.replace(/[\d.]+/g, "#");
    if (!text || (bare === words && Date.now() - spoken < 10000)) return;
    words = bare;
    spoken = Date.now();
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

/* Shows an element if the page is one narrow column. */
function ajourScrollTo(id) {
  if (innerWidth >= 720) return;
  setTimeout(() => document.getElementById(id).scrollIntoView({ behavior: "smooth" }), 400);
}
