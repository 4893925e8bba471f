// The card beside the pointer: what a cloud says of a place, and the picture of a sample there when it has come.
const KEPT = 300;

class Peek {
  constructor(card) {
    this.card = card;
    this.known = new Map();
    window.addEventListener("winnow-peek", (event) => this.card.isConnected && this.show(event.detail));
  }

  update(data, trigger) {
    [this.data, this.trigger] = [data, trigger];
    if (data.answer) {
      this.known.set(data.answer.key, data.answer);
      if (this.known.size > KEPT) this.known.delete(this.known.keys().next().value);
      if (data.answer.key === this.key) this.draw();
    }
  }

  show({ cloud, plane, given }) {
    if (cloud !== this.data.name) return;
    clearTimeout(this.waiting);
    this.given = given;
    this.key = given && JSON.stringify([plane, given.ask]);
    if (!given) {
      this.card.hidden = true;
      return;
    }
    this.draw();
    const key = this.key;
    if (!this.known.has(key)) this.waiting = setTimeout(() => this.trigger("ask", { key, ...given.ask }), 90);
  }

  // Only an answer to what is under the pointer now is shown, so that no picture is one of before.
  draw() {
    const { lines, left, top } = this.given, answer = this.known.get(this.key);
    const parts = [];
    if (answer?.image) {
      const image = element("img");
      image.alt = "";
      image.onload = () => image.classList.toggle("sharp", image.naturalWidth <= 64);
      image.src = "data:image/webp;base64," + answer.image;
      parts.push(image);
    }
    const words = element("div", "text");
    for (const line of lines) if (line) words.append(element("div", "", line));
    for (const line of answer?.lines ?? []) words.append(element("div", "from", line));
    parts.push(words);
    this.card.replaceChildren(...parts);
    this.card.hidden = false;
    this.card.dataset.key = this.key;
    const w = this.card.offsetWidth, h = this.card.offsetHeight;
    this.card.style.left = Math.max(4, left + 16 + w > innerWidth ? left - 16 - w : left + 16) + "px";
    this.card.style.top = Math.max(4, Math.min(innerHeight - h - 4, top + 12)) + "px";
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const card = parentElement.querySelector(".peek");
  card.peek ??= new Peek(card);
  card.peek.update(data, setTriggerValue);
}
