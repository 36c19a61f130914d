/* <ajour-upload>: a button that reads a file and sends "ajour-upload" with its name and its text;
   a file of more than data-most bytes is sent without its text. */
(() => {
  class Upload extends HTMLElement {
    connectedCallback() {
      if (this.listens) return;
      this.listens = true;
      this.addEventListener("change", (event) => this.read(event.target));
    }

    async read(input) {
      const file = input.files[0];
      if (!file) return;
      const text = file.size <= Number(this.dataset.most) ? await file.text() : null;
      input.value = ""; // the same file can be chosen again
      const detail = { name: file.name, text };
      this.dispatchEvent(new CustomEvent("ajour-upload", { bubbles: true, detail }));
    }
  }

  if (!customElements.get("ajour-upload")) customElements.define("ajour-upload", Upload);
})();
