// The thumbnail grid: one element for a whole page of samples. Arrow keys move, Enter or a click opens, Escape closes.
export default function ({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector(".grid");
  grid.style.setProperty("--size", data.size + "px");
  grid.classList.toggle("small", data.size < 90);
  grid.classList.toggle("clipped", data.clipped);
  const fresh = JSON.stringify(data.cards.map((c) => [c.id, c.value, c.chips, c.doubt, c.flagged, c.action]));
  if (grid.dataset.drawn !== fresh) {
    grid.dataset.drawn = fresh;
    grid.replaceChildren(...data.cards.map(card));
  }
  if (grid.dataset.page && grid.dataset.page !== String(data.page)) grid.scrollIntoView({ block: "start" });
  grid.dataset.page = data.page;
  const cards = [...grid.children];
  for (const c of cards) {
    const selected = c.dataset.id === String(data.selected);
    c.classList.toggle("selected", selected);
    c.setAttribute("aria-selected", selected);
    c.tabIndex = selected ? 0 : -1;
  }
  if (!cards.some((c) => c.tabIndex === 0) && cards[0]) cards[0].tabIndex = 0;
  const chosen = cards.find((c) => c.classList.contains("selected"));
  let focusing;
  if (chosen && data.follow) {
    // Opening a sample lays the page out anew around the grid, and the focus goes when the old grid does, which is
    // only at the end of the script run: take it back then, so that the arrow keys go on from the open sample.
    const until = Date.now() + 10000;
    focusing = setInterval(() => {
      if (!document.activeElement || document.activeElement === document.body) chosen.focus({ preventScroll: true });
      if (grid.getRootNode().activeElement || Date.now() > until) clearInterval(focusing);
    }, 100);
  }
  const open = (c) => setTriggerValue("open", Number(c.dataset.id));
  grid.onclick = (event) => {
    const c = event.target.closest(".card");
    if (c) open(c);
  };
  let wait;
  grid.onkeydown = (event) => {
    const at = cards.indexOf(event.target.closest(".card"));
    if (at < 0) return;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = cards[Math.max(0, Math.min(cards.length - 1, at + step))];
      cards.forEach((c) => (c.tabIndex = c === next ? 0 : -1));
      next.focus();
      if (data.selected !== null && data.follow) {
        clearTimeout(wait);
        wait = setTimeout(() => open(next), 150);
      }
    } else if (event.key === "Escape" && data.selected !== null) {
      setTriggerValue("open", -1);
    }
  };
  return () => {
    clearInterval(focusing);
    clearTimeout(wait);
  };
}

function card(c) {
  const element = document.createElement("button");
  element.className = "card";
  element.dataset.id = c.id;
  element.title = c.title;
  element.setAttribute("role", "option");
  const picture = document.createElement("span");
  picture.className = "picture";
  const image = document.createElement("img");
  image.alt = c.title;
  image.decoding = "async";
  // Small pictures are enlarged with sharp pixels, large ones smoothly.
  image.onload = () => image.classList.toggle("sharp", image.naturalWidth <= 64);
  image.className = "sharp";
  image.src = "data:image/webp;base64," + c.image;
  picture.append(image);
  const foot = document.createElement("span");
  foot.className = "foot";
  c.chips.forEach(([kind, text], i) => {
    if (i) foot.append(part("arrow", "→"));
    foot.append(part("chip " + kind, text));
  });
  if (c.value) foot.append(part("value", c.value));
  element.append(picture, foot);
  if (c.doubt) element.append(part(c.flagged ? "mark on" : "mark", c.doubt));
  if (c.action) element.append(part("action", c.action));
  return element;
}

function part(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}
