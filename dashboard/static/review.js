// Decides about one sample after the other. Everything that a person does counts at once in here; the server is told in
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

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".review");
  root.winnow ??= new Review(root);
  root.winnow.take(data, (message) => setStateValue("sent", message));
  return () => root.winnow.close();
}

class Review {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.names = [];
    this.tick = Date.now() % 1e9; // no earlier page's answer is taken for one of this page
    this.flight = null;
    this.onkey = (event) => this.key(event);
    this.onsize = () => this.fit();
    this.onleave = (event) => {
      if (this.outbox?.pending.length) event.preventDefault();
    };
    window.addEventListener("keydown", this.onkey, true);
    window.addEventListener("resize", this.onsize);
    window.addEventListener("beforeunload", this.onleave);
    this.clock = setInterval(() => this.look(), 1000);
    this.build();
  }

  close() {
    window.removeEventListener("keydown", this.onkey, true);
    window.removeEventListener("resize", this.onsize);
    window.removeEventListener("beforeunload", this.onleave);
    clearInterval(this.clock);
    delete this.root.winnow;
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
    if (this.flight) return;
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
    if (this.flight && Date.now() - this.flight.since > PATIENCE) {
      this.flight = null;
      this.silent = true;
      this.ask();
    }
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
    if (!this.root.isConnected || !this.answer) return;
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
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!event.repeat || repeats) act();
  }

  // What is seen ------------------------------------------------------------------------------------------------

  build() {
    const actions = this.find(".actions");
    const button = (name, key, act, css = "", shortcut = key) => {
      const made = part("button", css);
      made.type = "button";
      made.append(part("span", "", name), part("kbd", "", key));
      made.setAttribute("aria-keyshortcuts", shortcut);
      made.onclick = (event) => {
        act();
        // After the mouse the keys go on as before; whoever walks by Tab stays where they are.
        if (event.detail > 0 && this.find(".choosing").hidden) this.root.focus({ preventScroll: true });
      };
      return made;
    };
    this.accept = button("Relabel to the suggestion", "Enter", () => this.suggestion(), "wide take", "Enter s");
    const small = part("div", "small");
    small.append(
      button("Undo", "\u232b", () => this.undo(), "", "Control+Z Backspace"),
      button("Back", "\u2190", () => this.go(this.at - 1), "", "ArrowLeft b"),
      button("Next", "\u2192", () => this.go(this.at + 1), "", "ArrowRight n"),
      button("Zoom", "z", () => this.zoom()),
      button("Keys", "?", () => this.help(true)),
    );
    actions.append(
      this.accept,
      button("Keep", "k", () => this.decide("keep")),
      button("Drop", "d", () => this.decide("drop")),
      button("Relabel to \u2026", "r", () => this.choose()),
      button("Unsure", "u", () => this.decide("unsure")),
      small,
    );
    for (const [keys, meaning] of KEYS) {
      const term = part("dt");
      term.append(part("kbd", "", keys));
      this.find(".keys dl").append(term, part("dd", "", meaning));
    }
    this.find(".keys").onclick = () => this.help(false);
    const view = this.find(".window");
    let from = null;
    view.onpointerdown = (event) => {
      from = { x: event.clientX, y: event.clientY, left: view.scrollLeft, top: view.scrollTop, moved: false };
      event.preventDefault();
      this.root.focus({ preventScroll: true });
    };
    view.onpointermove = (event) => {
      if (!from || !event.buttons || !view.classList.contains("full")) return;
      from.moved ||= Math.hypot(event.clientX - from.x, event.clientY - from.y) > 4;
      view.scrollTo(from.left - event.clientX + from.x, from.top - event.clientY + from.y);
    };
    view.onclick = (event) => {
      if (!from?.moved) this.zoom(event);
      from = null;
    };
    this.find(".choosing input").oninput = () => this.match();
    this.find(".choosing").onclick = (event) => {
      const line = event.target.closest("li");
      if (line) this.pick(line);
      else if (event.target === this.find(".choosing")) this.leave();
    };
    this.find(".copy").onclick = () => {
      const item = this.items.get(this.at);
      navigator.clipboard?.writeText(item?.path ?? "").then(() => this.announce("path copied"), () => {});
    };
  }

  draw() {
    const { n } = this.answer;
    const item = this.items.get(this.at);
    const over = this.at >= n;
    this.find(".stage").hidden = over;
    this.find(".end").hidden = !over;
    if (over) this.finish();
    else if (this.drawn !== item || item?.element !== this.shown || !item) this.sample(item);
    if (!over && item) this.decided(item);
    this.find(".place").textContent = over ? `${number(n)} of ${number(n)}` : `${number(this.at + 1)} of ${number(n)}`;
    this.progress();
    this.status();
  }

  sample(item) {
    const changed = this.drawn?.id !== item?.id;
    this.drawn = item;
    this.shown = item?.element;
    const view = this.find(".window");
    if (changed) view.classList.remove("full");
    this.accept.disabled = !item || item.suggested === null;
    if (!item) {
      view.replaceChildren(part("span", "", "loading \u2026"));
      for (const name of [".labels", ".doubt", ".why", ".first", ".second"]) this.find(name).replaceChildren();
      this.accept.firstChild.textContent = "Relabel to the suggestion";
      return;
    }
    item.small ??= image(item.thumbnail, `sample ${item.id}`);
    view.replaceChildren(item.element ?? item.small);
    this.where(item);
    if (!changed) return;
    const labels = this.find(".labels");
    labels.classList.toggle("long", Math.max(this.name(item.given).length, item.suggested === null ? 0 : this.name(item.suggested).length) > 40);
    labels.replaceChildren(part("span", "kind", "given"), part("span", "name given", this.name(item.given)), part("span", "share", item.p_given));
    if (item.suggested !== null)
      labels.append(part("span", "kind", "suggested"), part("span", "name suggested", this.name(item.suggested)), part("span", "share", item.confidence));
    this.accept.firstChild.textContent = item.suggested === null ? "No label is suggested" : `Relabel to ${this.name(item.suggested)}`;
    const doubt = this.find(".doubt");
    doubt.replaceChildren();
    if (item.p_wrong) doubt.append("label wrong with ", part("b", item.listed ? "on" : "", item.p_wrong), item.listed ? " \u00b7 on the shortlist" : "");
    this.find(".why").replaceChildren(...item.why.map(([text, strong]) => part(strong ? "strong" : "span", "", text)));
    this.group(".first", item.near[0]);
    this.group(".second", item.near[1]);
    this.find(".facts").scrollTop = 0;
    this.say(`${this.at + 1} of ${this.answer.n}: given ${this.name(item.given)}${item.suggested === null ? "" : `, suggested ${this.name(item.suggested)} ${item.confidence}`}`);
    const url = new URL(window.location.href);
    if (url.searchParams.get("sample") !== String(item.id)) {
      url.searchParams.set("sample", item.id);
      window.history.replaceState(window.history.state, "", url);
    }
  }

  name(label) {
    return this.names[label] ?? `class ${label}`;
  }

  group(selector, near) {
    const place = this.find(selector);
    place.replaceChildren();
    if (!near) return;
    const name = this.name(near.label);
    const title = part("h3");
    title.append(part(name.length > 40 ? "b" : "strong", "", name), part("span", "", name.length > 40 ? near.text : ` \u00b7 ${near.text}`));
    const row = part("div", "thumbs");
    row.append(...near.thumbnails.map((content) => image(content, this.name(near.label))));
    place.append(title, row);
  }

  where(item) {
    const size = item.width ? `${number(item.width)} \u00d7 ${number(item.height)}` : "";
    const gone = this.find(".gone");
    gone.hidden = !item.missing;
    gone.textContent = gone.title = item.missing ?? "";
    const where = this.find(".where");
    where.textContent = where.title = [`sample ${item.id}`, size, item.path || item.source].filter(Boolean).join(" \u00b7 ");
    this.find(".copy").hidden = !item.path;
  }

  decided(item) {
    const now = this.find(".now");
    const standing = this.standing(item);
    now.hidden = !standing;
    if (standing) now.textContent = standing[0] === "relabel" ? `relabeled to ${this.name(standing[1])}` : WORDS[standing[0]];
  }

  progress() {
    const { n, tally } = this.answer;
    const more = this.outbox.fresh(this.list);
    const done = Math.min(n, tally.decided + more);
    this.find(".decided").textContent = `${number(done)} decided`;
    this.find(".track span").style.width = `${n ? (100 * done) / n : 0}%`;
    this.find(".wrong").textContent = tally.wrong + tally.kept ? `${Math.round((100 * tally.wrong) / (tally.wrong + tally.kept))} % of them wrong` : "";
    const pace = this.outbox.pace();
    const left = pace ? Math.ceil((n - done) / pace) : 0;
    const speed = pace ? `${pace < 10 ? pace.toFixed(1) : Math.round(pace)} a minute` : "";
    const rest = left < 90 ? `${left} min` : `${number(Math.round(left / 60))} h`;
    this.find(".pace").textContent = speed && left ? `${speed} \u00b7 ${rest} left` : speed;
    const stop = this.find(".stop");
    if (stop.hidden === Boolean(tally.stop)) {
      stop.hidden = !tally.stop;
      this.fit();
    }
    if (stop.textContent !== tally.stop) stop.textContent = tally.stop;
  }

  status() {
    if (!this.answer) return;
    const saved = this.find(".saved");
    const waiting = this.outbox.pending.length;
    const slow = this.flight && Date.now() - this.flight.since > 6000;
    if (!this.flight && !waiting) this.silent = false;
    let text = this.answer.author ? `saved as ${this.answer.author}` : "saved";
    let trouble = "";
    if (this.answer.problem && waiting) trouble = `not saved: ${this.answer.problem}`;
    else if (waiting && (slow || this.silent)) trouble = `${number(waiting)} not saved: the server does not answer`;
    else if (this.outbox.refused) trouble = `not saved: ${this.outbox.refused}`;
    else if (waiting) text = `saving ${number(waiting)}`;
    else if (!this.outbox.log.length) text = this.answer.author ? `as ${this.answer.author}` : "";
    saved.classList.toggle("trouble", Boolean(trouble));
    if (saved.textContent !== (trouble || text)) saved.textContent = trouble || text;
  }

  finish() {
    const { n, tally } = this.answer;
    const open = Math.max(0, n - tally.decided - this.outbox.fresh(this.list));
    this.drawn = null;
    this.find(".end h2").textContent = open ? "The end of the list" : "All decided";
    const told = open ? `${number(open)} of ${number(n)} are not decided.` : `All ${number(n)} of the list are decided.`;
    this.find(".end p").textContent = `${told} ${number(tally.wrong)} wrong, ${number(tally.kept)} kept, ${number(tally.unsure)} unsure. Back: \u2190.`;
  }

  fit() {
    const top = this.find(".whole").getBoundingClientRect().top;
    this.root.style.setProperty("--room", `${Math.max(380, window.innerHeight - Math.max(top, 90) - 22)}px`);
  }

  zoomed() {
    return this.find(".window").classList.contains("full");
  }

  // Whether an original is larger than what is shown of it.
  shrunk(item) {
    return Boolean(item?.element && !item.whole && Math.max(item.width, item.height) > Math.max(item.element.naturalWidth, item.element.naturalHeight));
  }

  zoom(event) {
    const view = this.find(".window");
    if (!view.querySelector("img")) return;
    if (!view.classList.toggle("full")) return;
    this.enlarge(event);
    this.ask();
  }

  enlarge(event) {
    const view = this.find(".window");
    const picture = view.querySelector("img");
    const box = view.getBoundingClientRect();
    const item = this.items.get(this.at);
    const [wide, high] = this.shrunk(item) ? [item.width, item.height] : [picture.naturalWidth, picture.naturalHeight];
    const scale = Math.max(1, (2 * Math.min(box.width, 576)) / wide);
    view.style.setProperty("--wide", `${wide * scale}px`);
    view.style.setProperty("--high", `${high * scale}px`);
    const x = event ? (event.clientX - box.left) / box.width : 0.5;
    const y = event ? (event.clientY - box.top) / box.height : 0.5;
    view.scrollTo(x * (view.scrollWidth - box.width), y * (view.scrollHeight - box.height));
  }

  help(open) {
    this.find(".keys").hidden = !open;
    if (!open) this.root.focus({ preventScroll: true });
  }

  announce(text) {
    this.before = text;
  }

  say(text) {
    this.find(".said").textContent = this.before ? `${this.before}. ${text}` : text;
    this.before = "";
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

// What was done and is not yet acknowledged. It is kept in the browser, under a key that belongs to this page alone and
// with a name for each operation that is never used twice: whoever finds it later sends it, and the server writes an
// operation once, however often it is sent. A server may end, a page may be closed: nothing is lost.
class Outbox {
  constructor(about) {
    this.about = about;
    this.mine = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.count = 0;
    this.refused = "";
    this.log = read(sessionStorage, `winnow-log:${about}`);
    this.pending = [];
    const seen = new Set();
    for (const key of stored(`winnow-review:${about}:`))
      for (const operation of read(localStorage, key)) if (!seen.has(operation.key) && seen.add(operation.key)) this.pending.push(operation);
    this.pending.sort((a, b) => a.when - b.when);
  }

  add(operation) {
    const made = { key: `${this.mine}-${++this.count}`, when: Date.now(), ...operation };
    this.pending.push(made);
    this.log.push(made);
    this.keep();
    return made;
  }

  undo() {
    const taken = this.log.findLast((operation) => operation.do !== "undo" && !operation.undone);
    if (!taken) return null;
    taken.undone = true;
    this.pending.push({ key: `${this.mine}-${++this.count}`, when: Date.now(), do: "undo", of: taken.key, id: taken.id });
    this.keep();
    return taken;
  }

  settle(done, refused) {
    const over = new Set(done);
    for (const [key, reason] of Object.entries(refused)) {
      over.add(key);
      this.refused = reason;
    }
    if (!over.size) return;
    this.pending = this.pending.filter((operation) => !over.has(operation.key));
    for (const key of stored(`winnow-review:${this.about}:`)) {
      const left = read(localStorage, key).filter((operation) => !over.has(operation.key));
      write(localStorage, key, left);
    }
  }

  fresh(list) {
    return this.pending.filter((operation) => operation.do !== "undo" && operation.list === list && !operation.undone).length;
  }

  // Decisions a minute, over the last 20 without longer breaks.
  pace() {
    const times = this.log.filter((operation) => !operation.undone).slice(-20).map((operation) => operation.when);
    let spent = 0;
    let steps = 0;
    for (let i = 1; i < times.length; i++)
      if (times[i] - times[i - 1] < 60000) {
        spent += times[i] - times[i - 1];
        steps++;
      }
    return steps > 2 && spent > 0 ? (60000 * steps) / spent : 0;
  }

  keep() {
    this.log = this.log.slice(-300);
    write(sessionStorage, `winnow-log:${this.about}`, this.log);
    write(localStorage, `winnow-review:${this.about}:${this.mine}`, this.pending);
  }
}

function stored(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return []; // a browser that keeps nothing: what is not saved is lost when the page is closed, as it warns
  }
}

function read(storage, key) {
  try {
    const found = JSON.parse(storage.getItem(key) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function write(storage, key, operations) {
  try {
    if (operations.length) storage.setItem(key, JSON.stringify(operations));
    else storage.removeItem(key);
  } catch {
    // full, or not allowed: as above
  }
}

function image(content, alt) {
  const made = document.createElement("img");
  made.alt = alt;
  made.draggable = false;
  // Small pictures are enlarged with sharp pixels, large ones smoothly.
  made.onload = () => made.classList.toggle("sharp", made.naturalWidth <= 64 && made.naturalHeight <= 64);
  made.src = content;
  return made;
}

function part(tag, css = "", text = "") {
  const made = document.createElement(tag);
  made.className = css;
  made.textContent = text;
  return made;
}

function number(value) {
  return value.toLocaleString("en-US");
}
