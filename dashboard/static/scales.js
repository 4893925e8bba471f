// Numbers to places, colors and texts, for what is drawn on a canvas. Joined in front of the components that draw.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8779", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const LIGHT = ["#d3e3f0", "#8fbbdb", "#4b8fc0", "#1f649c", "#0b3c6b"];
const DARK = ["#1c3a52", "#2b6390", "#4d94c4", "#8fc3e6", "#dff0fc"];
const SHARE = ["#8a949e", "#d9571c"];
const GRAY = "#8a949e";

function unpack(text, Type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

function rgb(color) {
  const n = parseInt(color.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

// A color of a ramp, part 0..1.
function along(ramp, part) {
  const at = Math.max(0, Math.min(1, part)) * (ramp.length - 1);
  const i = Math.min(ramp.length - 2, Math.floor(at));
  const [a, b] = [rgb(ramp[i]), rgb(ramp[i + 1])];
  return a.map((v, k) => Math.round(v + (b[k] - v) * (at - i)));
}

// Round numbers between two ends, about `wanted` of them.
function ticks(low, high, wanted) {
  const span = high - low;
  if (!(span > 0) || !isFinite(span)) return [];
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= wanted);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high && found.length < 50; i++) found.push(i * step);
  return found;
}

function written(value, span) {
  const size = Math.abs(value);
  let text;
  if (value === 0 || size < Math.abs(span) * 1e-9) text = "0";
  else if (size >= 1e6 || size < 1e-3) text = value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  else {
    const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(Math.abs(span || size))) + 2));
    text = value.toLocaleString("en", { maximumFractionDigits: digits });
  }
  return text.replace("-", "\u2212");
}

// What the page's theme says, as #rrggbb or as CSS would have it.
function themed(element) {
  const style = getComputedStyle(element);
  const value = (name, other) => style.getPropertyValue(name).trim() || other;
  const back = value("--st-background-color", "#ffffff");
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = back;
  const [r, g, b] = probe.fillStyle.startsWith("#") ? rgb(probe.fillStyle) : [255, 255, 255];
  return {
    back,
    text: value("--st-text-color", "#222222"),
    accent: value("--st-primary-color", "#2b8aa8"),
    font: value("--st-font", "sans-serif"),
    dark: 0.299 * r + 0.587 * g + 0.114 * b < 128,
  };
}

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}
