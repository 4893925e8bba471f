// Decides about one sample after the other. Everything that a person does counts at once in here; the server learns it in
// batches of what it has not acknowledged, which survive a reload and a server that ends (see Outbox).
const AHEAD = 20;
const KEPT = 80;
const PATIENCE = 10000;
const ACTIONS = { k: "keep", d: "drop", u: "unsure" };
const WORDS = { keep: "kept", drop: "dropped", unsure: "unsure", relabel: "relabeled" };
const KEYS = [
  ["k", "keep: the given label is right"], ["d", "drop the sample"], ["Enter or s", "relabel to the suggestion"],
  ["r", "relabel to another class: type a part of its name, Enter takes it, Escape leaves"], ["u", "unsure: for a second look"],
  ["Ctrl+Z or Backspace", "take back your last decision"], ["\u2190 or b", "back, without deciding"], ["\u2192 or n", "on, without deciding"],
  ["z", "full size and back; drag or scroll to move"], ["?", "these keys"],
];

const LATE = 5000;
const SAVING = 2000;
let review = null; // the one of this page
let place = null; // where in it that is

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".review");
  if (!root) return; // the review went on to another place
  if (review?.root !== root) {
    // A page may be laid out anew around the review, as when somebody else decides: it goes on where it was.
    if (review?.list === data.list && review.outbox.about === data.about) {
      root.replaceWith(review.root);
      review.attach();
    } else {
      review?.close();
      review = new Review(root);
    }
  }
  place = parentElement;
  review.take(data, (message) => setStateValue("sent", message));
  return () => place === parentElement && review?.detach();
}

class Review extends View {
  constructor(root) {
    super();
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.names = [];
    this.tick = Date.now() % 1e9; // no earlier page's answer is taken for one of this page
    this.flight = null;
    this.page = window.location.pathname;
    this.detached = false;
    this.waiting = null; // what the first key that was pressed meanwhile does
    this.link = null; // to another page, opened when all is saved
    this.leaving = -Infinity;
    this.onclick = (event) => this.depart(event);
    this.onkey = (event) => this.key(event);
    this.onsize = () => this.fit();
    this.onleave = (event) => {
      if (this.outbox?.pending.length) event.preventDefault();
    };
    window.addEventListener("keydown", this.onkey, true);
    window.addEventListener("click", this.onclick, true);
    window.addEventListener("popstate", this.onclick);
    window.addEventListener("resize", this.onsize);
    window.addEventListener("beforeunload", this.onleave);
    this.clock = setInterval(() => this.look(), 1000);
    this.build();
  }

  // Out of the page, for a moment or for good. A key that is pressed then was meant for what was on the screen: it counts
  // when the review is back.
  detach() {
    this.detached = true;
    this.closing = setTimeout(() => this.close(), LATE);
  }

  attach() {
    clearTimeout(this.closing);
    this.detached = false;
    this.flight = null;
    const { activeElement } = document;
    if (!activeElement || activeElement === document.body) this.root.focus({ preventScroll: true });
  }

  // To another page. One that is opened while a message of this one is on its way stays blank, so what was decided is saved
  // first, and nothing more is sent then.
  depart(event) {
    const link = event.composedPath().find((part) => part.matches?.("a[href]"));
    if (event.type === "click" && !link) return;
    const elsewhere = link?.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey;
    if (elsewhere) return;
    if (link && link !== this.followed && this.outbox.pending.length) {
      event.preventDefault();
      event.stopImmediatePropagation();
      if (!this.link) setTimeout(() => this.follow(), SAVING); // where no server answers
      this.link = link;
    } else this.leaving = Date.now();
  }

  follow() {
    this.followed = this.link;
    this.link = null;
    this.followed?.click();
    this.followed = null;
  }

  close() {
    clearTimeout(this.closing);
    window.removeEventListener("keydown", this.onkey, true);
    window.removeEventListener("click", this.onclick, true);
    window.removeEventListener("popstate", this.onclick);
    window.removeEventListener("resize", this.onsize);
    window.removeEventListener("beforeunload", this.onleave);
    clearInterval(this.clock);
    if (review === this) review = null;
  }

  // What the server says ----------------------------------------------------------------------------------------

  take(data, send) {
    this.send = send;
    if (!this.outbox || this.outbox.about !== data.about) this.outbox = new Outbox(data.about);
    if (data.names) this.names = data.names;
    const fresh = this.list !== data.list;
    if (fresh) {
      this.list = data.list;
      this.items = new Map();
      this.at = data.start;
      this.flight = null;
    }
    this.answer = data;
    this.outbox.settle(data.done, data.refused);
    for (const item of data.items) this.items.set(item.index, { ...this.items.get(item.index), ...item });
    for (const picture of data.originals) this.load(picture);
    for (const [id, decision] of Object.entries(data.standing))
      for (const item of this.items.values()) if (String(item.id) === id) item.standing = decision;
    if (this.flight && data.tick === this.flight.tick) this.flight = null;
    this.silent = false;
    for (const index of [...this.items.keys()]) if (Math.abs(index - this.at) > KEPT) this.items.delete(index);
    this.draw();
    if (fresh) {
      this.fit();
      this.root.focus({ preventScroll: true });
    }
    this.waiting?.();
    this.waiting = null;
    if (this.link && !this.outbox.pending.length) this.follow();
    this.ask();
  }

  load(picture) {
    const item = this.items.get(picture.index);
    if (!item) return;
    Object.assign(item, picture, { known: true });
    if (picture.full) item.whole = true;
    if (picture.image) item.element = image(picture.image, `sample ${item.id}`);
    item.element?.decode?.().catch(() => {});
  }

  // Tell the server what it does not know, and ask for what comes next. One message at a time.
  ask() {
    if (this.flight || this.detached || Date.now() - this.leaving < LATE) return;
    const near = [];
    for (let index = this.at; index < Math.min(this.answer.n, this.at + AHEAD); index++) near.push(index);
    if (this.at > 0) near.push(this.at - 1);
    const items = near.filter((index) => !this.items.has(index));
    const originals = near.filter((index) => !this.items.get(index)?.known);
    const operations = this.outbox.pending.slice(0, 100);
    // A new one alone is not worth a question: the queue is long.
    const few = items.length + originals.length;
    const whole = this.zoomed() && this.shrunk(this.items.get(this.at)) ? this.at : null;
    const late = whole !== null || originals.some((index) => index <= this.at + 5);
    if (!operations.length && !late && few < 5 && !(few && this.at + AHEAD >= this.answer.n)) return;
    this.flight = { tick: ++this.tick, since: Date.now(), first: this.flight?.first };
    this.send({ tick: this.tick, list: this.list, about: this.answer.about, operations, items, originals, whole, named: this.names.length > 0 });
    this.status();
  }

  look() {
    if (this.detached && window.location.pathname !== this.page) return this.close();
    if (this.flight && Date.now() - this.flight.since > PATIENCE) {
      this.flight = null;
      this.silent = true;
    }
    this.ask();
    this.status();
  }

  // What a person does ------------------------------------------------------------------------------------------

  decide(action, label = null) {
    const item = this.items.get(this.at);
    if (!item) return;
    if (action === "relabel" && label === item.given) [action, label] = ["keep", null];
    this.outbox.add({ do: action, id: item.id, label, list: this.list, index: this.at });
    this.announce(`${WORDS[action]}${label === null ? "" : ` to ${this.names[label] ?? ""}`}`);
    let next = this.at + 1;
    while (next < this.answer.n && this.items.has(next) && this.standing(this.items.get(next))) next++;
    this.go(next);
  }

  suggestion() {
    const item = this.items.get(this.at);
    if (item && item.suggested !== null) this.decide("relabel", item.suggested);
  }

  undo() {
    const taken = this.outbox.undo();
    if (!taken) return this.announce("nothing to undo");
    this.announce(`undone: ${WORDS[taken.do]}`);
    for (const item of this.items.values()) if (item.id === taken.id) item.standing = null;
    this.go(taken.list === this.list ? taken.index : this.at);
  }

  go(index) {
    this.at = Math.max(0, Math.min(this.answer.n, index));
    this.draw();
    this.ask();
  }

  standing(item) {
    const own = this.outbox.pending.findLast((operation) => operation.id === item.id);
    if (!own) return item.standing;
    return own.do === "undo" ? null : [own.do, own.label];
  }

  key(event) {
    if (!this.answer) return;
    const target = event.composedPath()[0];
    const inside = event.composedPath().includes(this.root);
    if (!this.find(".choosing").hidden) return inside && this.choosing(event);
    const typing = target.closest?.("input, textarea, select, [contenteditable], [role=slider], [role=combobox], [role=listbox]");
    if (typing || (!inside && target.closest?.("a, button, summary, [role=button], [role=dialog]"))) return;
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && !event.altKey && pressed === "z") return this.use(event, () => this.undo());
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest?.("button") && (pressed === "Enter" || pressed === " ")) return;
    if (!this.find(".keys").hidden) {
      if (pressed === "Escape" || pressed === "?") this.use(event, () => this.help(false));
      return;
    }
    if (ACTIONS[pressed]) this.use(event, () => this.decide(ACTIONS[pressed]));
    else if (pressed === "Enter" || pressed === "s") this.use(event, () => this.suggestion());
    else if (pressed === "r") this.use(event, () => this.choose());
    else if (pressed === "Backspace") this.use(event, () => this.undo());
    else if (pressed === "ArrowLeft" || pressed === "b") this.use(event, () => this.go(this.at - 1), true);
    else if (pressed === "ArrowRight" || pressed === "n") this.use(event, () => this.go(this.at + 1), true);
    else if (pressed === "z") this.use(event, () => this.zoom());
    else if (pressed === "?") this.use(event, () => this.help(true));
    else if (pressed === "Escape" && this.zoomed()) this.use(event, () => this.zoom());
  }

  // Streamlit has keys of its own (r runs the page anew): what counts in here goes no further. A key that is held down
  // decides once.
  use(event, act, repeats = false) {
    if (this.detached) return void (this.waiting ??= act);
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!event.repeat || repeats) act();
  }

  // Another class -----------------------------------------------------------------------------------------------

  choose() {
    if (!this.items.get(this.at)) return;
    this.find(".choosing").hidden = false;
    const input = this.find(".choosing input");
    input.value = "";
    input.focus();
    this.match();
  }

  match() {
    const wanted = this.find(".choosing input").value.trim().toLowerCase();
    const item = this.items.get(this.at);
    const found = [];
    this.names.forEach((name, label) => {
      const place = name.toLowerCase().indexOf(wanted);
      if (place < 0) return;
      const inner = place > 0 && /[\p{L}\p{N}]/u.test(name[place - 1]);
      found.push({ label, name, rank: wanted ? (place === 0 ? 0 : inner ? 2 : 1) : label === item?.suggested ? 0 : 1 });
    });
    found.sort((a, b) => a.rank - b.rank || a.label - b.label);
    const list = this.find(".choosing ul");
    list.replaceChildren(
      ...found.slice(0, 10).map(({ label, name }, i) => {
        const line = part("li", "", name);
        line.id = `class-${label}`;
        line.dataset.label = label;
        line.setAttribute("role", "option");
        line.setAttribute("aria-selected", i === 0);
        return line;
      }),
    );
    if (found.length > 10) list.append(part("div", "more", `and ${number(found.length - 10)} more`));
    if (!found.length) list.append(part("div", "more", "no class has that in its name"));
    this.point();
  }

  point() {
    const line = this.find(".choosing li[aria-selected=true]");
    const input = this.find(".choosing input");
    if (line) input.setAttribute("aria-activedescendant", line.id);
    else input.removeAttribute("aria-activedescendant");
  }

  choosing(event) {
    event.stopImmediatePropagation();
    const lines = [...this.root.querySelectorAll(".choosing li")];
    const at = lines.findIndex((line) => line.getAttribute("aria-selected") === "true");
    if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" && !event.isComposing && !event.repeat && at >= 0) this.pick(lines[at]);
    else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && lines.length) {
      const next = (at + (event.key === "ArrowDown" ? 1 : -1) + lines.length) % lines.length;
      lines.forEach((line, i) => line.setAttribute("aria-selected", i === next));
      this.point();
    } else if (event.key !== "Tab" && event.key !== "Enter") return;
    event.preventDefault();
  }

  pick(line) {
    this.leave();
    this.decide("relabel", Number(line.dataset.label));
  }

  leave() {
    this.find(".choosing").hidden = true;
    this.root.focus({ preventScroll: true });
  }
}
