/* <ajour-heads>: a grid of buttons, one for each head. One button is in the tab order; arrow keys,
   Home and End move between buttons, Enter and Space select a head, which sends "ajour-head". */
(() => {
  class Heads extends HTMLElement {
    connectedCallback() {
      if (this.listens) return;
      this.listens = true;
      this.addEventListener("keydown", (event) => this.move(event));
      this.addEventListener("click", (event) => this.choose(event.target.closest("tbody button")));
    }

    /* Looked up each time: the page changes the map in place. */
    get rows() {
      return [...this.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button")]);
    }

    at(button) {
      const layer = this.rows.findIndex((row) => row.includes(button));
      return [layer, layer < 0 ? -1 : this.rows[layer].indexOf(button)];
    }

    move(event) {
      const [layer, head] = this.at(event.target);
      if (layer < 0) return;
      const last = this.rows[layer].length - 1;
      const to = {
        ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head],
        ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1],
        Home: [layer, 0], End: [layer, last],
      }[event.key];
      const button = to && this.rows[to[0]] && this.rows[to[0]][to[1]];
      if (!to) return;
      event.preventDefault();
      if (!button) return;
      event.target.tabIndex = -1;
      button.tabIndex = 0;
      button.focus();
    }

    choose(button) {
      if (!button) return;
      for (const row of this.rows)
        for (const other of row) {
          other.removeAttribute("aria-current");
          other.tabIndex = -1;
        }
      button.tabIndex = 0;
      button.setAttribute("aria-current", "true");
      const [layer, head] = this.at(button);
      this.dispatchEvent(new CustomEvent("ajour-head", { bubbles: true, detail: { layer, head } }));
    }
  }

  if (!customElements.get("ajour-heads")) customElements.define("ajour-heads", Heads);
})();
