// Classes against classes. Up to 30 as a table of numbers, more as a picture that is moved and enlarged; the arrow keys
// go from cell to cell in both, Enter or a click chooses one.
const VERMILION = [217, 87, 28];
const MOST = 70; // percent of the color in the darkest cell: numbers on it are read in the light and the dark theme

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".matrix");
  const view = read(data);
  const choose = (given, other) => setTriggerValue("cell", [given, other]);
  root.replaceChildren(legend(view));
  return data.order.length <= 30 ? table(root, view, choose) : picture(root, view, choose);
}

function read(data) {
  const bytes = Uint8Array.from(atob(data.cells), (c) => c.charCodeAt(0));
  const numbers = new Int32Array(bytes.buffer);
  const count = data.order.length, cells = new Map(), sizes = new Array(count).fill(0);
  for (let i = 0; i < numbers.length; i += 2) {
    cells.set(numbers[i], numbers[i + 1]);
    sizes[Math.floor(numbers[i] / count)] += numbers[i + 1];
  }
  let top = 0;
  for (const [key, n] of cells) {
    const given = Math.floor(key / count);
    if (given !== key % count) top = Math.max(top, n / sizes[given]);
  }
  const at = (given, other) => cells.get(given * count + other) ?? 0;
  const strength = (given, other) => (top ? Math.sqrt(at(given, other) / sizes[given] / top) : 0);
  const say = (given, other) => {
    const n = at(given, other), samples = n === 1 ? "1 sample" : `${n.toLocaleString("en")} samples`;
    const share = sizes[given] ? `${percent(n / sizes[given])} of given ${data.names[given]}` : "of no sample";
    return `given ${data.names[given]}, ${data.word} ${data.names[other]}: ${samples}, ${share}`;
  };
  return { ...data, count, cells, sizes, top, at, strength, say };
}

function percent(share) {
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toPrecision(2)} %`;
}

function legend(view) {
  const line = part("legend");
  const bar = part("scale");
  bar.setAttribute("aria-hidden", "true");
  const middle = view.top / 4; // the color grows with the root of the share
  line.append("0 %", bar, percent(view.top), part("note", `of the given class (half as strong: ${percent(middle)})`));
  return line;
}

function table(root, view, choose) {
  const frame = part("frame"), grid = document.createElement("table");
  grid.setAttribute("aria-label", `given label by ${view.word} label`);
  const head = grid.createTHead().insertRow();
  head.append(cellHead(`given ↓ ${view.word} →`, "corner"));
  for (const other of view.order) head.append(cellHead(view.names[other], "top", "col"));
  const body = grid.createTBody(), buttons = new Map();
  view.order.forEach((given, y) => {
    const row = body.insertRow();
    row.append(cellHead(view.names[given], "side", "row"));
    view.order.forEach((other, x) => {
      const cell = row.insertCell();
      const n = view.at(given, other);
      if (given === other) cell.className = "same";
      if (!n) return;
      const button = document.createElement("button");
      button.textContent = n.toLocaleString("en");
      button.title = view.say(given, other);
      button.setAttribute("aria-label", view.say(given, other));
      const chosen = view.chosen && view.chosen[0] === given && view.chosen[1] === other;
      button.setAttribute("aria-pressed", Boolean(chosen));
      if (given !== other) button.style.setProperty("--much", `${MOST * view.strength(given, other)}%`);
      button.tabIndex = -1;
      button.onclick = () => choose(given, other);
      cell.append(button);
      buttons.set(`${y},${x}`, button);
    });
  });
  const places = [...buttons.keys()].map((key) => key.split(",").map(Number));
  const start = [...buttons.values()].find((b) => b.getAttribute("aria-pressed") === "true") ?? [...buttons.values()][0];
  if (start) start.tabIndex = 0;
  grid.onkeydown = (event) => {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const now = places.find(([y, x]) => buttons.get(`${y},${x}`) === event.target);
    if (!way || !now) return;
    event.preventDefault();
    // the next cell that holds something, that way; the one nearest to the line
    const ahead = places
      .map(([y, x]) => [(y - now[0]) * way[0] + (x - now[1]) * way[1], Math.abs((y - now[0]) * way[1]) + Math.abs((x - now[1]) * way[0]), y, x])
      .filter(([far]) => far > 0)
      .sort((a, b) => a[1] - b[1] || a[0] - b[0])[0];
    if (!ahead) return;
    const next = buttons.get(`${ahead[2]},${ahead[3]}`);
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  frame.append(grid);
  root.append(frame);
}

function cellHead(text, name, scope) {
  const head = document.createElement("th");
  head.className = name;
  head.title = text;
  if (scope) head.scope = scope;
  head.append(part("text", text));
  return head;
}

function picture(root, view, choose) {
  const canvas = document.createElement("canvas"), status = part("status"), tools = part("tools");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `given label by ${view.word} label, ${view.count} classes: arrow keys go from cell to cell, Enter chooses, + and - enlarge`);
  status.setAttribute("role", "status");
  const place = new Map(view.order.map((label, i) => [label, i])); // where each class stands
  let scale = 1, left = 0, top = 0, cursor = view.chosen ? view.chosen.map((label) => place.get(label)) : [0, 0], held = null;
  const side = () => canvas.clientWidth;
  const unit = () => (side() / view.count) * scale;
  const clamp = () => {
    const most = view.count - view.count / scale;
    left = Math.max(0, Math.min(most, left));
    top = Math.max(0, Math.min(most, top));
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, pixels = Math.round(side() * ratio);
    if (!pixels) return;
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const style = getComputedStyle(canvas), pen = canvas.getContext("2d"), u = unit() * ratio;
    pen.clearRect(0, 0, pixels, pixels);
    const see = (label, from) => (place.get(label) - from) * u;
    pen.fillStyle = style.color;
    pen.globalAlpha = 0.16;
    for (let i = 0; i < view.count; i++) pen.fillRect((i - left) * u, (i - top) * u, Math.max(1, u), Math.max(1, u));
    const big = u / ratio >= 22;
    pen.font = `${Math.round(Math.min(13, unit() * 0.42) * ratio)}px sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const [key, n] of view.cells) {
      const given = Math.floor(key / view.count), other = key % view.count;
      const x = see(other, left), y = see(given, top);
      if (x < -u || y < -u || x > pixels || y > pixels) continue;
      if (given !== other) {
        // a cell too small to be seen is drawn larger and darker than it is
        const small = u < 4 * ratio, wide = small ? 3 * ratio : u;
        pen.globalAlpha = (MOST / 100) * Math.max(small ? 0.6 : 0.2, view.strength(given, other));
        pen.fillStyle = `rgb(${VERMILION})`;
        pen.fillRect(x + (u - wide) / 2, y + (u - wide) / 2, wide, wide);
      }
      if (big) {
        pen.globalAlpha = 1;
        pen.fillStyle = style.color;
        pen.fillText(n, x + u / 2, y + u / 2);
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = style.getPropertyValue("--st-primary-color") || "#1f6f8b";
    pen.lineWidth = 2 * ratio;
    const wide = Math.max(u, 7 * ratio);
    pen.strokeRect((cursor[1] - left + 0.5) * u - wide / 2, (cursor[0] - top + 0.5) * u - wide / 2, wide, wide);
  };
  const tell = ([y, x]) => (status.textContent = view.say(view.order[y], view.order[x]));
  const zoom = (by, x = cursor[1] + 0.5, y = cursor[0] + 0.5) => {
    const before = scale;
    scale = Math.max(1, Math.min(view.count / 8, scale * by));
    left = x - (x - left) * (before / scale);
    top = y - (y - top) * (before / scale);
    clamp();
    draw();
  };
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const within = (v) => Math.max(0, Math.min(view.count - 1, Math.floor(v)));
    return [within(top + (event.clientY - box.top) / unit()), within(left + (event.clientX - box.left) / unit())];
  };
  // A cell of less than a finger's width is chosen as the fullest one near the pointer.
  const nearest = ([y, x]) => {
    const reach = Math.ceil(3 / unit());
    if (unit() >= 6) return [y, x];
    let best = [y, x], most = 0;
    for (let i = Math.max(0, y - reach); i <= Math.min(view.count - 1, y + reach); i++)
      for (let j = Math.max(0, x - reach); j <= Math.min(view.count - 1, x + reach); j++) {
        const n = i === j ? 0 : view.at(view.order[i], view.order[j]);
        if (n > most) [best, most] = [[i, j], n];
      }
    return best;
  };
  canvas.onpointerdown = (event) => {
    held = { x: event.clientX, y: event.clientY, left, top, moved: false };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (held) {
      held.moved ||= Math.hypot(event.clientX - held.x, event.clientY - held.y) > 4;
      left = held.left - (event.clientX - held.x) / unit();
      top = held.top - (event.clientY - held.y) / unit();
      clamp();
      draw();
    } else tell(nearest(under(event)));
  };
  canvas.onpointerup = (event) => {
    const click = held && !held.moved;
    held = null;
    if (!click) return;
    cursor = nearest(under(event));
    draw();
    tell(cursor);
    choose(view.order[cursor[0]], view.order[cursor[1]]);
  };
  canvas.onkeydown = (event) => {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (way) {
      cursor = cursor.map((v, i) => Math.max(0, Math.min(view.count - 1, v + way[i])));
      const seen = view.count / scale;
      if (cursor[1] < left || cursor[1] > left + seen - 1) left = cursor[1] - seen / 2;
      if (cursor[0] < top || cursor[0] > top + seen - 1) top = cursor[0] - seen / 2;
      clamp();
      draw();
      tell(cursor);
    } else if (event.key === "Enter") choose(view.order[cursor[0]], view.order[cursor[1]]);
    else if (event.key === "+" || event.key === "=") zoom(2);
    else if (event.key === "-") zoom(0.5);
    else return;
    event.preventDefault();
  };
  for (const [text, name, by] of [["+", "enlarge", 2], ["−", "make smaller", 0.5]]) {
    const button = document.createElement("button");
    button.textContent = text;
    button.setAttribute("aria-label", name);
    button.onclick = () => zoom(by, left + view.count / scale / 2, top + view.count / scale / 2);
    tools.append(button);
  }
  tools.append(part("note", "drag to move; the given label goes down, the other across"));
  root.append(tools, canvas, status);
  const watch = new ResizeObserver(draw);
  watch.observe(canvas);
  if (view.chosen) {
    zoom(Math.max(1, view.count / 24));
    left = cursor[1] - view.count / scale / 2;
    top = cursor[0] - view.count / scale / 2;
    clamp();
    draw();
  }
  tell(cursor);
  return () => watch.disconnect();
}

function part(name, text = "") {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}
