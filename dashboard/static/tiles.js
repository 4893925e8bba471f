// One tile of the grid: the picture, the given label, what it should be after an arrow, and what was decided about it.
const DECIDED = { keep: "keep", drop: "drop", relabel: "relabeled", unsure: "unsure" };

function tile(card) {
  const element = document.createElement("div");
  element.className = "card";
  element.dataset.id = card.id;
  element.tabIndex = -1;
  element.setAttribute("role", "option");
  const picture = part("picture", "");
  const image = document.createElement("img");
  image.alt = "";
  image.draggable = false;
  image.decoding = "async";
  // Small pictures are enlarged with sharp pixels, large ones smoothly.
  image.onload = () => image.classList.toggle("sharp", image.naturalWidth <= 64);
  image.className = "sharp";
  image.src = "data:image/webp;base64," + card.image;
  picture.append(image);
  if (card.doubt) picture.append(part(card.flagged ? "mark on" : "mark", card.doubt));
  if (card.value) picture.append(part("value", card.value));
  if (card.test) picture.append(part("part", "test"));
  const tick = part("tick", "");
  tick.setAttribute("aria-hidden", "true");
  element.append(picture, part("names", ""), tick);
  if (card.tint) {
    element.classList.add("tinted");
    element.style.setProperty("--tint", card.tint[1]);
    element.append(part("tint", card.tint[0]));
  }
  return element;
}

// Write a tile's labels and its decision, which may change while it stays.
function dress(element, card, decision) {
  const written = JSON.stringify(decision);
  if (element.dataset.decision === written) return;
  element.dataset.decision = written;
  const chips = [...card.chips];
  if (decision?.action === "relabel") chips.splice(1, chips.length, ["decided", decision.name]);
  element.querySelector(".names").replaceChildren(
    ...chips.map(([kind, text], i) => {
      const line = part("line", "");
      if (i) line.append(part("arrow", "→"));
      const chip = part("chip " + kind, text);
      chip.title = `${kind} label: ${text}`;
      line.append(chip);
      return line;
    }),
  );
  element.querySelector(".action")?.remove();
  element.classList.toggle("dropped", decision?.action === "drop");
  if (decision) element.querySelector(".picture").append(part("action " + decision.action, DECIDED[decision.action]));
  const decided = decision ? ` · ${DECIDED[decision.action]}${decision.name ? ` as ${decision.name}` : ""}` : "";
  element.querySelector(".picture").title = card.title + decided;
  element.setAttribute("aria-label", card.title + decided);
}

function part(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}
