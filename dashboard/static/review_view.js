// What the review shows. dashboard/review.py puts this file before review.js, whose class goes on from here.
class View {
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
    const words = open ? `${number(open)} of ${number(n)} are not decided.` : `All ${number(n)} of the list are decided.`;
    this.find(".end p").textContent = `${words} ${number(tally.wrong)} wrong, ${number(tally.kept)} kept, ${number(tally.unsure)} unsure. Back: \u2190.`;
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
    this.find(".spoken").textContent = this.before ? `${this.before}. ${text}` : text;
    this.before = "";
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
