/* <ajour-compare>: dense, sparse and their difference, one above the other in one video, drawn side
   by side, under a wipe, or alone. One video cannot fall out of step with itself. */
(() => {
  const VIEWS = [["side", "Side by side"], ["wipe", "Wipe"], ["difference", "Difference"]];

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  class Compare extends HTMLElement {
    /* Gradio changes elements in place: it sets new facts as an attribute, and removes the nodes made
       here. In both cases they are made again. */
    connectedCallback() {
      this.watcher = new MutationObserver(() => this.update());
      this.watcher.observe(this, { childList: true, attributes: true, attributeFilter: ["data-facts"] });
      this.update();
    }

    disconnectedCallback() {
      this.watcher.disconnect();
      this.leave();
    }

    update() {
      if (this.stage && this.shown === this.dataset.facts && this.contains(this.stage)) return;
      this.leave();
      this.shown = this.dataset.facts;
      this.facts = JSON.parse(this.shown);
      const { src, frames, names } = this.facts;
      this.view = "side";
      this.video = make("video", { src, muted: "", playsinline: "", preload: "auto", hidden: "" });
      this.video.muted = this.video.loop = true;
      this.panels = [0, 1, 2].map((index) => {
        const canvas = make("canvas", {
          width: this.facts.width, height: this.facts.height, role: "img", "aria-label": names[index],
        });
        return make("figure", { class: `panel p${index}` }, canvas, make("figcaption", {}, names[index]));
      });
      this.stage = make("div", { class: "stage" }, ...this.panels);
      this.replaceChildren(
        this.video, this.toolbar(), this.stage, this.wipeControl(), this.transport(), this.chart());
      this.setView("side");
      this.listen();
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      if (frames > 1 && !calm) this.video.play().catch(() => {});
    }

    leave() {
      if (!this.video) return;
      this.video.pause();
      this.video.removeAttribute("src");
      this.video.load();
      this.video = this.stage = null;
    }

    toolbar() {
      this.buttons = VIEWS.map(([view, name]) => {
        const button = make("button", { type: "button", "data-view": view }, name);
        button.addEventListener("click", () => this.setView(view));
        return button;
      });
      return make("div", { class: "views", role: "group", "aria-label": "View" }, ...this.buttons);
    }

    wipeControl() {
      this.wipe = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Wipe position" });
      this.wipe.addEventListener("input", () => this.draw());
      this.wipeRow = make("label", { class: "wipe" }, make("span", {}, "Dense"), this.wipe, make("span", {}, "Sparse"));
      const drag = (event) => {
        if (this.view !== "wipe" || !(event.buttons & 1)) return;
        const box = this.panels[0].querySelector("canvas").getBoundingClientRect();
        this.wipe.value = (100 * (event.clientX - box.left)) / box.width;
        this.draw();
      };
      this.stage.addEventListener("pointerdown", drag);
      this.stage.addEventListener("pointermove", drag);
      return this.wipeRow;
    }

    transport() {
      const { frames } = this.facts;
      this.play = make("button", { type: "button", class: "play" }, "Play");
      this.play.addEventListener("click", () => (this.video.paused ? this.video.play() : this.video.pause()));
      this.slider = make("input", { type: "range", min: 1, max: frames, value: 1, "aria-label": "Frame" });
      this.slider.addEventListener("input", () => this.seek(this.slider.value - 1));
      this.readout = make("output", { class: "readout" });
      const row = make("div", { class: "transport" }, this.play, this.slider, this.readout);
      if (frames < 2) this.play.hidden = this.slider.hidden = true;
      return row;
    }

    /* PSNR by frame; a click goes there, the slider above does the same by keyboard. */
    chart() {
      const { psnr, frames } = this.facts;
      const low = Math.min(...psnr), high = Math.max(...psnr), span = Math.max(high - low, 1);
      const x = (i) => (frames > 1 ? (100 * i) / (frames - 1) : 50);
      const y = (v) => 27 - (24 * (v - low)) / span;
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 100 30");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      svg.innerHTML =
        `<polyline points="${psnr.map((v, i) => `${x(i)},${y(v)}`).join(" ")}"/><line y1="0" y2="30"/>`;
      this.marker = svg.querySelector("line");
      this.place = x;
      svg.addEventListener("click", (event) => {
        const box = svg.getBoundingClientRect();
        this.seek(Math.round(((event.clientX - box.left) / box.width) * (frames - 1)));
      });
      const text = `PSNR by frame, ${low.toFixed(1)} to ${high.toFixed(1)} dB`;
      const chart = make("div", { class: "chart" }, svg, make("small", {}, text));
      chart.hidden = frames < 2;
      return chart;
    }

    listen() {
      const video = this.video;
      const paint = () => video === this.video && this.draw();
      for (const name of ["loadeddata", "seeked", "timeupdate"]) video.addEventListener(name, paint);
      const label = () => { this.play.textContent = video.paused ? "Play" : "Pause"; };
      video.addEventListener("play", () => { label(); this.tick(video); });
      video.addEventListener("pause", label);
      video.addEventListener("error", () => {
        if (!video.getAttribute("src")) return;
        this.readout.textContent = "This browser cannot play the video; download it below.";
      });
    }

    tick(video) {
      if (video !== this.video || video.paused) return;
      this.draw();
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(() => this.tick(video));
      else requestAnimationFrame(() => this.tick(video));
    }

    seek(frame) {
      this.video.pause();
      this.video.currentTime = (frame + 0.5) / this.facts.fps;
    }

    setView(view) {
      this.view = view;
      this.dataset.view = view;
      for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
      this.panels[0].querySelector("canvas").setAttribute("aria-label",
        view === "wipe" ? "Dense on the left, sparse on the right of the wipe" : this.facts.names[0]);
      this.panels[0].lastChild.textContent =
        view === "wipe" ? `${this.facts.names[0]} | ${this.facts.names[1]}` : this.facts.names[0];
      this.draw();
    }

    draw() {
      const { frames, fps, width, height, psnr, ssim } = this.facts;
      const frame = Math.min(frames - 1, Math.max(0, Math.floor(this.video.currentTime * fps + 1e-3)));
      if (this.video.readyState >= 2) {
        this.panels.forEach((panel, index) => {
          const brush = panel.querySelector("canvas").getContext("2d");
          brush.drawImage(this.video, 0, index * height, width, height, 0, 0, width, height);
          if (index === 0 && this.view === "wipe") this.drawWipe(brush);
        });
      }
      this.slider.value = frame + 1;
      this.wipe.setAttribute("aria-valuetext", `dense up to ${Math.round(this.wipe.value)} percent of the width`);
      const quality = `PSNR ${psnr[frame].toFixed(1)} dB, SSIM ${ssim[frame].toFixed(3)}`;
      this.slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}, ${quality}`);
      this.readout.textContent = `Frame ${frame + 1} of ${frames}: ${quality}`;
      const at = this.place(frame);
      this.marker.setAttribute("x1", at);
      this.marker.setAttribute("x2", at);
    }

    drawWipe(brush) {
      const { width, height } = this.facts;
      const edge = Math.round((width * this.wipe.value) / 100);
      if (edge < width)
        brush.drawImage(this.video, edge, height, width - edge, height, edge, 0, width - edge, height);
      brush.fillStyle = "#fff";
      brush.fillRect(edge - 1, 0, Math.max(1, width / 256), height);
    }
  }

  if (!customElements.get("ajour-compare")) customElements.define("ajour-compare", Compare);
})();
