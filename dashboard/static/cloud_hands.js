// What mouse, fingers and keyboard do to a cloud: move, zoom, draw an outline, open a sample, ask what is under it.
Object.assign(Cloud.prototype, {
  buttons() {
    const bar = this.root.querySelector(".tools");
    const add = (name, text, label, act) => {
      const button = element("button", name, text);
      button.type = "button";
      button.title = label;
      button.setAttribute("aria-label", label);
      button.onclick = act;
      bar.append(button);
      return button;
    };
    this.switches = Object.entries(TOOLS).map(([tool, label]) => [
      tool,
      add(`tool ${tool}`, { pan: "\u2725", lasso: "\u25cc", box: "\u25ad" }[tool], label, () => this.choose(tool)),
    ]);
    add("more", "+", "Zoom in", () => this.zoom(1.6));
    add("less", "\u2212", "Zoom out", () => this.zoom(1 / 1.6));
    add("reset", "\u21ba", "Show everything", () => (this.home(), this.moved()));
    add("clear", "\u2715", "Clear the outline", () => this.send([])).hidden = true;
    this.choose("pan");
  },

  choose(tool) {
    this.tool = tool;
    this.over.dataset.tool = tool;
    for (const [name, button] of this.switches) button.setAttribute("aria-pressed", name === tool);
  },

  listen() {
    const over = this.over;
    over.onpointerdown = (e) => this.down(e);
    over.onpointermove = (e) => this.move(e);
    over.onpointerup = (e) => this.up(e);
    over.onpointercancel = (e) => { this.pointers.delete(e.pointerId); this.drawing = null; this.paintOver(); };
    over.onpointerleave = () => this.peek(null);
    over.addEventListener("wheel", (e) => {
      e.preventDefault();
      const [x, y] = this.at(e);
      this.zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0016)), x, y);
    }, { passive: false });
    over.onkeydown = (e) => {
      const step = 60;
      const act = {
        ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step),
        ArrowDown: () => this.pan(0, -step), "+": () => this.zoom(1.6), "=": () => this.zoom(1.6), "-": () => this.zoom(1 / 1.6),
        0: () => (this.home(), this.moved()), Escape: () => this.escape(),
      }[e.key];
      if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      e.stopPropagation();
      act();
    };
  },

  escape() {
    if (this.drawing) { this.drawing = null; this.paintOver(); }
    else if ((this.pending ? this.pending.corners : this.data.outline).length) this.send([]);
    else if (this.data.selected) this.trigger("open", -1);
  },

  at(event) {
    const box = this.over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  },

  down(e) {
    if (e.button > 0) return;
    this.over.setPointerCapture(e.pointerId);
    this.over.focus({ preventScroll: true });
    this.peek(null);
    const at = this.at(e);
    this.pointers.set(e.pointerId, at);
    this.start = at;
    this.dragged = false;
    this.way = e.shiftKey && this.tool === "pan" ? "lasso" : this.tool;
    if (this.pointers.size > 1) this.drawing = null;
    else if (this.way !== "pan") this.drawing = [at];
  },

  move(e) {
    const at = this.at(e), before = this.pointers.get(e.pointerId);
    if (!before) return this.hover(at, e);
    this.pointers.set(e.pointerId, at);
    if (this.pointers.size === 2) {
      const [a, b] = this.pointers.values(), other = a === at ? b : a;
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      this.dragged = true;
      return this.zoom(apart(at) / apart(before), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    }
    if (Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > 4) this.dragged = true;
    if (this.drawing) {
      const last = this.drawing[this.drawing.length - 1], [x, y] = this.start;
      if (this.way === "box") this.drawing = [[x, y], [at[0], y], at, [x, at[1]]];
      else if (Math.hypot(at[0] - last[0], at[1] - last[1]) > 2) this.drawing.push(at);
      this.paintOver();
    } else if (this.dragged) this.pan(at[0] - before[0], at[1] - before[1]);
  },

  up(e) {
    const at = this.pointers.get(e.pointerId);
    this.pointers.delete(e.pointerId);
    if (!at || this.pointers.size) return;
    const drawn = this.drawing;
    this.drawing = null;
    if (drawn && this.dragged && drawn.length > 2) {
      const step = Math.max(1, Math.ceil(drawn.length / 60));
      return this.send(drawn.filter((_, i) => i % step === 0).map(([x, y]) => [this.ux(x), this.uy(y)]));
    }
    this.paintOver();
    if (this.dragged) return;
    const hit = this.hit(at);
    if (hit) this.trigger("open", hit.id);
    else if (this.density) this.trigger("open", [this.ux(at[0]), this.uy(at[1]), ...this.reach()]);
  },

  // An outline stays on the screen, and is sent again, until the server has confirmed it.
  send(corners) {
    this.pending = { corners, count: ++this.count };
    const given = this.pending;
    const deliver = () => {
      if (this.pending !== given || !this.root.isConnected) return;
      this.trigger("outline", { corners, count: given.count });
      setTimeout(deliver, 5000);
    };
    deliver();
    this.paintOver();
  },

  // A dozen pixels, in the units of the axes.
  reach() {
    const f = this.frame(), [l, r, b, t] = this.view;
    return [(12 * (r - l)) / f.w, (12 * (t - b)) / f.h];
  },

  hit([px, py]) {
    let found = null, least = 81;
    for (const some of [this.points, this.marked]) {
      if (!some) continue;
      for (let i = 0; i < some.ids.length; i++) {
        const d = (this.px(some.x[i]) - px) ** 2 + (this.py(some.y[i]) - py) ** 2;
        if (d < least) [least, found] = [d, { id: some.ids[i], x: some.x[i], y: some.y[i], c: some.c ? some.c[i] : NaN }];
      }
    }
    return found;
  },

  value(c) {
    const { kind, names, yes, no, title } = this.data.color;
    if (kind === "category") return c >= 0 ? names[c] ?? "another" : "none of these";
    if (kind === "share") return isNaN(c) ? "unknown" : c > 0.5 ? yes : no;
    return kind === "number" && !isNaN(c) ? `${title} ${written(c, 0)}` : "";
  },

  hover(at, e) {
    const hit = this.hit(at), f = this.frame();
    this.over.classList.toggle("on", !!hit);
    if (hit) {
      const where = this.data.axes ? [`${this.data.axes.x} ${written(hit.x, 0)}`, `${this.data.axes.y} ${written(hit.y, 0)}`] : [];
      return this.peek({ ask: { id: hit.id }, lines: [`sample ${hit.id}`, this.value(hit.c), ...where] }, e);
    }
    if (!this.density || at[0] < f.x || at[1] < f.y) return this.peek(null);
    const { across, up, counts, values } = this.density, [l, r, b, t] = this.data.window;
    const [x, y] = [this.ux(at[0]), this.uy(at[1])];
    const [i, j] = [Math.floor(((x - l) / (r - l)) * across), Math.floor(((y - b) / (t - b)) * up)];
    const bin = j * across + i, n = i >= 0 && j >= 0 && i < across && j < up ? counts[bin] : 0;
    if (!n) return this.peek(null);
    const { kind, yes } = this.data.color, c = values ? values[bin] : NaN;
    const what = kind === "share" && !isNaN(c) ? `${Math.round(100 * c)} % ${yes}` : kind === "category" ? `most: ${this.value(c)}` : this.value(c).replace(/^(.)/, "mean of $1");
    const middle = [l + ((i + 0.5) / across) * (r - l), b + ((j + 0.5) / up) * (t - b)];
    this.peek({ ask: { at: [...middle, (r - l) / across, (t - b) / up] }, lines: [n === 1 ? "1 sample" : `${n.toLocaleString("en")} samples`, what] }, e);
  },

  // The card beside the pointer is another component: what it asks for comes without the cloud being sent again.
  peek(detail, e) {
    const given = detail && { ...detail, left: e.clientX, top: e.clientY };
    window.dispatchEvent(new CustomEvent("winnow-peek", { detail: { cloud: this.data.name, plane: this.data.plane, given } }));
  },

  legend(theme = themed(this.root)) {
    const list = this.root.querySelector(".legend"), { color, density, palette, listed } = this.data;
    const parts = [];
    const swatch = (tint, text, kind = "dot") => {
      const part = element("span", "entry"), mark = element("i", kind);
      mark.style.setProperty("--tint", tint);
      part.append(mark, element("span", "", text));
      parts.push(part);
    };
    const scale = (ramp, low, high, title) => {
      const part = element("span", "entry"), bar = element("i", "ramp");
      bar.style.background = `linear-gradient(90deg, ${ramp.join(", ")})`;
      part.append(element("span", "", title), element("b", "", low), bar, element("b", "", high));
      parts.push(part);
    };
    if (color.kind === "number") scale(CIVIDIS, written(color.low, color.high - color.low), written(color.high, color.high - color.low), color.title);
    if (color.kind === "share") {
      if (density) scale(SHARE, "0", "100 %", color.title);
      else [[GRAY, color.no], ["#d9571c", color.yes]].forEach(([tint, text]) => swatch(tint, text));
    }
    if (color.kind === "category") {
      // The names of many stand on the map and under the pointer: a list of some would only push the map down.
      if (color.many > 20) parts.push(element("span", "entry", `${color.many.toLocaleString("en")} classes share ${palette.length} colors`));
      else color.names.forEach((name, i) => swatch(palette[i % palette.length], name));
      if (color.rest) swatch(GRAY, color.rest);
    }
    if (density) {
      const ramp = theme.dark ? DARK : LIGHT;
      if (density.values) parts.push(element("span", "entry", `paler: fewer samples; at most ${density.most.toLocaleString("en")} in a spot`));
      else scale(ramp, "1", density.most.toLocaleString("en"), "samples in a spot");
    }
    if (listed) swatch(theme.dark ? "#ff8a50" : "#b8430f", listed, "ring");
    for (const line of this.data.lines) swatch("#8b6bb1", line.text, "dash");
    list.replaceChildren(...parts);
  },
});

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const root = parentElement.querySelector(".cloud");
  root.cloud ??= new Cloud(root);
  root.cloud.update(data, setStateValue, setTriggerValue);
}
