// A histogram with a threshold to drag. What lies beyond it is counted here, from sums that came with the histogram.
const W = 1000, H = 260;

class Threshold {
  constructor(root) {
    this.root = root;
    this.svg = root.querySelector("svg");
    this.line = root.querySelector(".line");
    this.svg.onpointerdown = (e) => {
      this.svg.setPointerCapture(e.pointerId);
      this.dragging = true;
      this.to(this.under(e));
    };
    this.svg.onpointermove = (e) => this.dragging && this.to(this.under(e));
    this.svg.onpointerup = () => {
      if (!this.dragging) return;
      this.dragging = false;
      this.line.focus({ preventScroll: true });
      this.release();
    };
    this.line.onkeydown = (e) => {
      const n = this.data.n.length;
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 20, PageDown: -20, Home: -n, End: n }[e.key];
      if (step === undefined) return;
      e.preventDefault();
      // To the right on the screen is the harder side, whichever way the score goes.
      this.to(this.bin + step);
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.release(), 500);
    };
  }

  update(data, trigger) {
    this.trigger = trigger;
    if (this.data?.key !== data.key) {
      this.data = data;
      this.beyond = { n: [...this.sum(data.n), 0], wrong: [...this.sum(data.wrong), 0], known: [...this.sum(data.known), 0] };
      this.bars();
    }
    this.data = data;
    if (!this.dragging) this.to(data.bin);
  }

  sum(values) {
    const found = new Array(values.length);
    let sum = 0;
    for (let i = values.length - 1; i >= 0; i--) found[i] = sum += values[i];
    return found;
  }

  bars() {
    const { n } = this.data;
    // Few samples are drawn in wider bars than the steps in which the threshold moves.
    const wide = Math.max(1, Math.ceil(n.length / Math.max(20, 2 * Math.sqrt(this.beyond.n[0]))));
    const bars = (name) => Array.from({ length: Math.ceil(n.length / wide) }, (_, i) => this.data[name].slice(i * wide, (i + 1) * wide).reduce((a, b) => a + b, 0));
    const all = bars("n"), most = Math.max(1, ...all), w = (W * wide) / n.length;
    const path = (values) => values.map((v, i) => (v ? `M${i * w} ${H}v${(-H * v) / most}h${w}V${H}z` : "")).join("");
    this.root.querySelector(".all").setAttribute("d", path(all));
    this.root.querySelector(".wrong").setAttribute("d", path(bars("wrong")));
    const axis = this.root.querySelector(".axis"), [first, last] = [this.data.edges[0], this.data.edges[n.length]];
    axis.replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((part) => element("span", "", written(first + part * (last - first), last - first))));
    this.root.querySelector(".known").hidden = !this.beyond.known[0];
  }

  under(e) {
    const box = this.svg.getBoundingClientRect();
    return Math.round(((e.clientX - box.left) / box.width) * this.data.n.length);
  }

  to(bin) {
    const { n, edges, title, sides } = this.data, { beyond } = this;
    this.bin = Math.max(0, Math.min(n.length, bin));
    const x = (this.bin / n.length) * W, span = edges[n.length] - edges[0];
    this.line.setAttribute("transform", `translate(${x} 0)`);
    this.root.querySelector(".beyond").setAttribute("x", x);
    this.root.querySelector(".beyond").setAttribute("width", W - x);
    const count = beyond.n[this.bin], percent = (a, b) => (b ? `${((100 * a) / b).toFixed(1)} %` : "\u2013");
    const words = [`${title} ${sides} ${written(edges[this.bin], span)}: ${count.toLocaleString("en")} samples, ${percent(count, beyond.n[0])}`];
    if (beyond.known[0]) {
      words.push(`precision ${percent(beyond.wrong[this.bin], beyond.known[this.bin])}`, `recall ${percent(beyond.wrong[this.bin], beyond.wrong[0])}`);
    }
    this.root.querySelector("output").textContent = words.join(" \u00b7 ");
    for (const [name, value] of [["valuenow", this.bin], ["valuemax", n.length], ["valuetext", words.join(", ")], ["label", `threshold of ${title}`]])
      this.line.setAttribute("aria-" + name, value);
  }

  release() {
    if (this.bin !== this.data.bin) this.trigger("bin", this.bin);
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".threshold");
  root.threshold ??= new Threshold(root);
  root.threshold.update(data, setTriggerValue);
}
