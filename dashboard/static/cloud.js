// A cloud of samples: a density counted by the server, refined when one zooms, or the points where they are few enough.
const LEFT = 58, BELOW = 40, EDGE = 8;
const TOOLS = { pan: "Move", lasso: "Lasso: draw around samples", box: "Box: drag over samples" };

class Cloud {
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas.base");
    this.over = root.querySelector("canvas.over");
    this.tool = "pan";
    this.pointers = new Map();
    this.pending = null; // an outline that the server has not acknowledged
    this.drawing = null; // the one being drawn, in pixels
    this.count = Math.floor(Math.random() * 1e9);
    this.buttons();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(root.querySelector(".stage"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(() => this.repaint(), 300));
  }

  update(data, state, trigger) {
    [this.state, this.trigger] = [state, trigger];
    const other = !this.data || this.data.plane !== data.plane;
    const packed = data.density?.counts !== this.data?.density?.counts || data.points?.x !== this.data?.points?.x;
    this.data = data;
    if (other || packed || this.colored !== data.color.key) this.unpackAll();
    this.colored = data.color.key;
    if (this.pending && data.acknowledged === this.pending.count) this.pending = null;
    if (other || !this.view) {
      this.requested = null;
      this.view = null;
      this.home();
    }
    this.over.setAttribute("aria-label", data.text);
    this.root.querySelector(".words").textContent = data.text;
    this.legend();
    this.repaint();
  }

  unpackAll() {
    const { density, points, marked } = this.data;
    this.image = null;
    this.density = density && {
      ...density,
      counts: unpack(density.counts, density.wide ? Uint32Array : Uint16Array),
      values: density.values ? this.decoded(unpack(density.values, Uint16Array)) : null,
    };
    const open = (p) => p && {
      ids: unpack(p.ids, Int32Array), x: unpack(p.x, Float32Array), y: unpack(p.y, Float32Array),
      c: p.c ? unpack(p.c, Float32Array) : null, flagged: p.flagged ? unpack(p.flagged, Uint8Array) : null,
    };
    this.points = open(points);
    this.marked = open(marked);
  }

  // Two bytes a bin: 0 for none, else the code of a category and one, or a part of the color scale.
  decoded(values) {
    const { kind, low, high } = this.data.color;
    return Float32Array.from(values, (v) => (kind === "category" ? v - 1 : v ? low + ((v - 1) / 65534) * (high - low) : NaN));
  }

  // Where things are --------------------------------------------------------------------------------------------

  frame() {
    const axes = !!this.data?.axes;
    return { x: axes ? LEFT : EDGE, y: EDGE, w: Math.max(20, this.width - (axes ? LEFT : EDGE) - EDGE),
      h: Math.max(20, this.height - EDGE - (axes ? BELOW : EDGE)) };
  }

  px(x) { const f = this.frame(), v = this.view; return f.x + ((x - v[0]) / (v[1] - v[0])) * f.w; }
  py(y) { const f = this.frame(), v = this.view; return f.y + f.h - ((y - v[2]) / (v[3] - v[2])) * f.h; }
  ux(px) { const f = this.frame(), v = this.view; return v[0] + ((px - f.x) / f.w) * (v[1] - v[0]); }
  uy(py) { const f = this.frame(), v = this.view; return v[2] + ((f.y + f.h - py) / f.h) * (v[3] - v[2]); }

  home() {
    if (!this.width || !this.data) return;
    let [l, r, b, t] = this.data.home;
    const f = this.frame(), pad = this.data.axes ? 0.02 : 0.03;
    [l, r, b, t] = [l - pad * (r - l), r + pad * (r - l), b - pad * (t - b), t + pad * (t - b)];
    if (this.data.equal) {
      const unit = Math.max((r - l) / f.w, (t - b) / f.h);
      const [cx, cy] = [(l + r) / 2, (b + t) / 2];
      [l, r, b, t] = [cx - (unit * f.w) / 2, cx + (unit * f.w) / 2, cy - (unit * f.h) / 2, cy + (unit * f.h) / 2];
    }
    this.view = [l, r, b, t];
    this.ask();
  }

  resize() {
    const stage = this.root.querySelector(".stage");
    const [w, h] = [stage.clientWidth, stage.clientHeight];
    if (!w || !h || (w === this.width && h === this.height)) return;
    const first = !this.width, before = this.width && this.view ? [this.frame(), this.view] : null;
    [this.width, this.height] = [w, h];
    const scale = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.over]) [canvas.width, canvas.height] = [w * scale, h * scale];
    if (first || !this.view || !before) this.home();
    else if (this.data.equal) {
      const [f, v] = before, now = this.frame(), unit = (v[1] - v[0]) / f.w;
      const [cx, cy] = [(v[0] + v[1]) / 2, (v[2] + v[3]) / 2];
      this.view = [cx - (unit * now.w) / 2, cx + (unit * now.w) / 2, cy - (unit * now.h) / 2, cy + (unit * now.h) / 2];
    }
    this.repaint();
  }

  zoom(factor, px, py) {
    const f = this.frame();
    const [x, y] = [this.ux(px ?? f.x + f.w / 2), this.uy(py ?? f.y + f.h / 2)];
    const [l, r, b, t] = this.view, [hl, hr] = this.data.full;
    const width = (r - l) / factor;
    if (width < (hr - hl) * 1e-6 || width > (hr - hl) * 8) return;
    this.view = [x - (x - l) / factor, x + (r - x) / factor, y - (y - b) / factor, y + (t - y) / factor];
    this.moved();
  }

  pan(dx, dy) {
    const f = this.frame(), [l, r, b, t] = this.view;
    const [mx, my] = [(-dx / f.w) * (r - l), (dy / f.h) * (t - b)];
    this.view = [l + mx, r + mx, b + my, t + my];
    this.moved();
  }

  moved() {
    this.repaint();
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.ask(), 180);
  }

  // Ask for this part in the detail that the screen can show, unless everything is here.
  ask() {
    if (!this.data || this.data.complete || !this.state) return;
    const f = this.frame(), [l, r, b, t] = this.view, [fl, fr, fb, ft] = this.data.full;
    const [mx, my] = [(r - l) * 0.1, (t - b) * 0.1];
    const wanted = [Math.max(l - mx, fl), Math.min(r + mx, fr), Math.max(b - my, fb), Math.min(t + my, ft)];
    if (!(wanted[1] > wanted[0] && wanted[3] > wanted[2])) return;
    const bins = (size, part, whole) => Math.max(8, Math.min(400, Math.round(((size * part) / whole) / 2.5)));
    const [across, up] = [bins(f.w, wanted[1] - wanted[0], r - l), bins(f.h, wanted[3] - wanted[2], t - b)];
    const have = this.data.window, whole = wanted[0] === fl && wanted[1] === fr && wanted[2] === fb && wanted[3] === ft;
    if (whole && have.slice(0, 4).every((v, i) => v === wanted[i]) && this.data.bins[0] >= across / 1.5) return;
    const text = JSON.stringify([...wanted, across, up]);
    if (text === this.requested) return;
    this.requested = text;
    this.state("view", [...wanted, across, up]);
  }

  // Painting ----------------------------------------------------------------------------------------------------

  repaint() {
    if (this.painting) return;
    this.painting = requestAnimationFrame(() => {
      this.painting = 0;
      if (this.width && this.data && this.view) this.paint();
    });
  }

  shade(c) {
    const color = this.data.color;
    if (color.kind === "category") return c < 0 || !(c >= 0) ? rgb(GRAY) : rgb(this.data.palette[c % this.data.palette.length]);
    if (color.kind === "share") return isNaN(c) ? rgb(GRAY) : along(SHARE, c);
    return isNaN(c) ? rgb(GRAY) : along(CIVIDIS, (c - color.low) / (color.high - color.low || 1));
  }

  paintDensity(theme) {
    const { across, up, counts, values, most } = this.density;
    const made = document.createElement("canvas");
    [made.width, made.height] = [across, up];
    const context = made.getContext("2d"), image = context.createImageData(across, up);
    const ramp = theme.dark ? DARK : LIGHT, top = Math.log1p(most);
    for (let i = 0; i < counts.length; i++) {
      if (!counts[i]) continue;
      const level = Math.log1p(counts[i]) / top;
      const [r, g, b] = values ? this.shade(values[i]) : along(ramp, level);
      const at = 4 * ((up - 1 - Math.floor(i / across)) * across + (i % across));
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b;
      image.data[at + 3] = values ? 70 + 185 * level : 255;
    }
    context.putImageData(image, 0, 0);
    return made;
  }

  paint() {
    const theme = themed(this.root), context = this.canvas.getContext("2d"), f = this.frame();
    if (this.dark !== theme.dark) { this.image = null; this.dark = theme.dark; this.legend(theme); }
    const scale = devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.save();
    context.beginPath();
    context.rect(f.x, f.y, f.w, f.h);
    context.clip();
    if (this.data.axes) this.grid(context, theme, f);
    if (this.density) {
      this.image ??= this.paintDensity(theme);
      const [l, r, b, t] = this.data.window;
      context.imageSmoothingEnabled = false;
      context.drawImage(this.image, this.px(l), this.py(t), this.px(r) - this.px(l), this.py(b) - this.py(t));
    }
    if (this.points) this.dots(context, this.points, theme);
    if (this.marked) this.specks(context, this.marked, theme);
    for (const line of this.data.lines) this.line(context, line);
    this.names(context, theme, f);
    context.restore();
    if (this.data.axes) this.axes(context, theme, f);
    this.paintOver(theme);
    this.root.dataset.painted = this.points ? "points" : "density";
    this.root.dataset.window = this.data.window.join(" ");
  }

  dots(context, points, theme) {
    const n = points.ids.length, size = n <= 1500 ? 4 : n <= 6000 ? 3 : 2.2;
    const yes = (i) => this.data.color.kind === "share" && points.c[i] > 0.5;
    const sprites = new Map();
    const sprite = (color) => {
      const key = color.join();
      if (!sprites.has(key)) {
        const made = document.createElement("canvas"), d = Math.ceil(size * 2 + 2);
        made.width = made.height = d * 2;
        const c = made.getContext("2d");
        c.scale(2, 2);
        c.beginPath();
        c.arc(d / 2, d / 2, size, 0, 7);
        c.fillStyle = `rgba(${key},0.78)`;
        c.fill();
        sprites.set(key, [made, d]);
      }
      return sprites.get(key);
    };
    const plain = rgb(theme.dark ? "#6fb1de" : "#3b82b8");
    for (const turn of [false, true])
      for (let i = 0; i < n; i++) {
        if (yes(i) !== turn) continue;
        const [x, y] = [this.px(points.x[i]), this.py(points.y[i])];
        if (x < -9 || y < -9 || x > this.width + 9 || y > this.height + 9) continue;
        const [made, d] = sprite(points.c ? this.shade(points.c[i]) : plain);
        context.drawImage(made, x - d / 2, y - d / 2, d, d);
      }
    this.rings(context, points, theme, size);
  }

  rings(context, points, theme, size) {
    if (this.data.color.rings === false) return;
    context.strokeStyle = theme.dark ? "#ff8a50" : "#b8430f";
    context.lineWidth = 1.4;
    context.beginPath();
    for (let i = 0; i < points.ids.length; i++) {
      if (points.flagged && !points.flagged[i]) continue;
      const [x, y] = [this.px(points.x[i]), this.py(points.y[i])];
      context.moveTo(x + size, y);
      context.arc(x, y, size, 0, 7);
    }
    context.stroke();
  }

  specks(context, points, theme) {
    if (this.data.color.rings === false) return;
    context.fillStyle = theme.dark ? "#ff8a50" : "#b8430f";
    context.globalAlpha = 0.75;
    for (let i = 0; i < points.ids.length; i++) context.fillRect(this.px(points.x[i]) - 0.9, this.py(points.y[i]) - 0.9, 1.8, 1.8);
    context.globalAlpha = 1;
  }

  line(context, { x0, y0, x1, y1 }) {
    context.strokeStyle = "#8b6bb1";
    context.lineWidth = 2.2;
    context.setLineDash([7, 5]);
    context.beginPath();
    context.moveTo(this.px(x0), this.py(y0));
    context.lineTo(this.px(x1), this.py(y1));
    context.stroke();
    context.setLineDash([]);
  }

  // The names of classes, the largest first; one that would cover another is left out.
  names(context, theme, f) {
    const placed = [];
    context.font = `600 12.5px ${theme.font}`;
    context.textBaseline = "middle";
    for (const label of this.data.labels) {
      if (placed.length >= 40) break;
      const [x, y] = [this.px(label.x), this.py(label.y) - (this.points ? 18 : 0)]; // beside the points, not on them
      let text = label.text;
      while (context.measureText(text).width > 190 && text.length > 4) text = text.slice(0, -4).trimEnd() + "\u2026";
      const w = context.measureText(text).width + 12, box = [x - w / 2, y - 10, x + w / 2, y + 10];
      if (box[0] < f.x || box[2] > f.x + f.w || box[1] < f.y || box[3] > f.y + f.h) continue;
      if (placed.some((o) => box[0] < o[2] + 4 && box[2] > o[0] - 4 && box[1] < o[3] + 3 && box[3] > o[1] - 3)) continue;
      placed.push(box);
      context.fillStyle = theme.back;
      context.globalAlpha = 0.86;
      context.beginPath();
      context.roundRect(box[0], box[1], w, 20, 5);
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = this.data.palette[label.code % this.data.palette.length];
      context.lineWidth = 1.6;
      context.stroke();
      context.fillStyle = theme.text;
      context.fillText(text, box[0] + 6, y + 0.5);
    }
    this.root.dataset.labels = placed.length;
  }

  grid(context, theme, f) {
    context.strokeStyle = theme.text;
    context.globalAlpha = 0.12;
    context.lineWidth = 1;
    context.beginPath();
    for (const x of ticks(this.view[0], this.view[1], f.w / 90)) { context.moveTo(this.px(x), f.y); context.lineTo(this.px(x), f.y + f.h); }
    for (const y of ticks(this.view[2], this.view[3], f.h / 60)) { context.moveTo(f.x, this.py(y)); context.lineTo(f.x + f.w, this.py(y)); }
    context.stroke();
    context.globalAlpha = 1;
  }

  axes(context, theme, f) {
    context.fillStyle = theme.text;
    context.font = `12px ${theme.font}`;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const x of ticks(this.view[0], this.view[1], f.w / 90))
      context.fillText(written(x, this.view[1] - this.view[0]), this.px(x), f.y + f.h + 5);
    context.fillText(this.data.axes.x, f.x + f.w / 2, f.y + f.h + 22);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const y of ticks(this.view[2], this.view[3], f.h / 60))
      context.fillText(written(y, this.view[3] - this.view[2]), f.x - 6, this.py(y));
    context.save();
    context.translate(10, f.y + f.h / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(this.data.axes.y, 0, 0);
    context.restore();
    context.textAlign = "left";
  }

  // The outline, the open sample, and what is being drawn: above the cloud, so that it need not be painted anew.
  paintOver(theme = themed(this.root)) {
    const context = this.over.getContext("2d"), scale = devicePixelRatio || 1;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const outline = this.pending ? this.pending.corners : this.data.outline;
    const around = this.drawing ?? outline.map(([x, y]) => [this.px(x), this.py(y)]);
    this.root.dataset.outline = this.drawing ? "drawing" : outline.length ? (this.pending ? "sent" : "kept") : "none";
    this.root.querySelector(".clear").hidden = !outline.length;
    if (around.length > 1) {
      context.beginPath();
      around.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.fillStyle = "rgba(139,107,177,0.14)";
      context.fill();
      context.lineWidth = 3.5;
      context.strokeStyle = theme.back;
      context.stroke();
      context.lineWidth = 2;
      context.strokeStyle = theme.dark ? "#c3a6e6" : "#6d4a99";
      context.setLineDash([5, 3]);
      context.stroke();
      context.setLineDash([]);
    }
    const chosen = this.data.selected;
    if (chosen) {
      const [x, y] = [this.px(chosen[0]), this.py(chosen[1])];
      for (const [width, color] of [[5, theme.back], [2.5, theme.text]]) {
        context.lineWidth = width;
        context.strokeStyle = color;
        context.beginPath();
        context.arc(x, y, 9, 0, 7);
        context.stroke();
      }
    }
  }
}
