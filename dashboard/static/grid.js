// The thumbnail grid: one element for a whole page of samples. Arrow keys move, Enter or a click opens, Escape closes.
// With `acting` tiles are selected and decided about; what is decided shows at once, and again when the server has it.
const CONFIRMED_FROM = 200;

export default function ({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector(".grid");
  const bar = parentElement.querySelector(".bulk");
  const acting = data.acting;
  const my = remembered(data.name);
  grid.style.setProperty("--size", data.size + "px");
  grid.classList.toggle("clipped", data.clipped);
  grid.setAttribute("aria-multiselectable", Boolean(acting));
  if (acting) {
    my.pending = my.pending.filter((a) => acting.client !== my.client || a.seq > acting.done);
    if (my.scope !== acting.scope) clear(my);
    my.scope = acting.scope;
    const present = new Set(data.cards.map((c) => c.id));
    for (const id of my.chosen) if (!present.has(id)) my.chosen.delete(id);
  }
  const cards = lay(grid, data);
  const byId = new Map(data.cards.map((c) => [c.id, c]));
  const idOf = (element) => Number(element.dataset.id);
  if (grid.dataset.page && grid.dataset.page !== String(data.page)) grid.scrollIntoView({ block: "start" });
  grid.dataset.page = data.page;

  const focused = () => cards.find((c) => c === grid.getRootNode().activeElement);
  const show = () => {
    const decided = new Map();
    for (const act of my.pending) {
      if (act.action === "undo" || act.scope !== my.scope) continue;
      for (const id of act.ids ?? byId.keys()) {
        const own = act.action === "suggested" ? byId.get(id)?.suggestion : act.name;
        if (act.action === "suggested" && !own) continue;
        decided.set(id, { action: act.action === "suggested" ? "relabel" : act.action, name: own ?? "" });
      }
    }
    for (const c of cards) {
      const id = idOf(c);
      dress(c, byId.get(id), decided.get(id) ?? byId.get(id).decision);
      const opened = id === data.selected;
      const chosen = my.everything || my.chosen.has(id);
      c.classList.toggle("selected", opened);
      c.classList.toggle("chosen", Boolean(acting) && chosen);
      c.setAttribute("aria-selected", acting ? chosen : opened);
      if (opened) c.setAttribute("aria-current", "true");
      else c.removeAttribute("aria-current");
    }
    grid.classList.toggle("choosing", my.everything || my.chosen.size > 0);
    if (acting) showBar(bar, my, acting, cards.length, cards.some((c) => c.tabIndex === 0));
  };
  const rove = (to) => cards.forEach((c) => (c.tabIndex = c === to ? 0 : -1));
  const opened = cards.find((c) => idOf(c) === data.selected);
  if (opened || !cards.some((c) => c.tabIndex === 0)) rove(opened ?? cards[0]);

  // Deciding ----------------------------------------------------------------------------------------------------------
  let again;
  const send = () => {
    clearTimeout(again);
    if (!my.pending.length) return;
    // All that the server has not confirmed: a later message replaces one that it has not read yet.
    setTriggerValue("acts", { client: my.client, acts: my.pending });
    again = setTimeout(send, 5000);
  };
  const commit = (act = my.unconfirmed) => {
    const held = grid.getRootNode().activeElement;
    my.pending.push({ ...act, seq: ++my.seq });
    clear(my);
    send();
    show();
    if (held?.closest?.(".ask")) back();
  };
  const act = (action, label = null) => {
    if (action === "undo") return commit({ action, ids: [], label, name: "", n: 0, scope: my.scope });
    const one = cards.find((c) => c.tabIndex === 0);
    const ids = my.chosen.size ? cards.map(idOf).filter((id) => my.chosen.has(id)) : one ? [idOf(one)] : [];
    const n = my.everything ? acting.total : ids.length;
    if (!n) return;
    const name = label === null ? "" : acting.classes[label];
    const chosen = { action, ids: my.everything ? null : ids, label, name, n, scope: my.scope };
    if (n <= CONFIRMED_FROM) return commit(chosen);
    my.unconfirmed = chosen;
    show();
    bar.querySelector(".yes").focus();
  };
  const back = () => cards.find((c) => c.tabIndex === 0)?.focus({ preventScroll: true });
  const choose = (what) => {
    if (what === "everything") {
      my.everything = acting.total > cards.length;
      my.chosen = new Set(cards.map(idOf));
      back();
    } else if (what === "none") {
      clear(my);
      back();
    } else {
      my.unconfirmed = null;
      back();
    }
    show();
  };
  bar.hidden = !acting;
  if (acting && !bar.children.length) makeBar(bar, (...given) => bar.act(...given), () => bar.commit(), (w) => bar.choose(w));
  Object.assign(bar, { act, commit: () => commit(), choose });
  show();
  if (acting && my.pending.length) again = setTimeout(send, 5000);

  // Focus -------------------------------------------------------------------------------------------------------------
  // Opening a sample lays the page out anew around the grid, and the focus goes when the old grid does, which is at the end
  // of the script run, however late: take it back then, so that the arrow keys go on from the open sample, until somebody
  // presses elsewhere.
  const refocus = () => {
    if (!document.activeElement || document.activeElement === document.body) opened.focus({ preventScroll: true });
  };
  const focusing = opened && data.follow ? setInterval(refocus, 100) : undefined;
  const letGo = () => clearInterval(focusing);
  window.addEventListener("pointerdown", letGo, true);
  const skip = acting ? skipLink(back) : null;

  // Mouse and keyboard ------------------------------------------------------------------------------------------------
  const open = (c) => setTriggerValue("open", idOf(c));
  grid.onclick = (event) => {
    const c = event.target.closest(".card");
    if (!c) return;
    rove(c);
    const adds = event.ctrlKey || event.metaKey || event.target.closest(".tick");
    if (acting && event.shiftKey) extend(my, cards, idOf(c));
    else if (acting && adds) toggle(my, idOf(c));
    else return open(c);
    c.focus({ preventScroll: true });
    show();
  };
  grid.onpointerdown = (event) => {
    if (acting && event.button === 0 && event.pointerType !== "touch") drawBox(my, grid, cards, event, show);
  };
  let wait;
  const move = (to, extends_) => {
    if (acting && extends_) {
      my.anchor = my.chosen.size ? my.anchor : idOf(focused() ?? to);
      extend(my, cards, idOf(to));
      show();
    }
    rove(to);
    to.focus();
    if (data.selected !== null && data.follow && !extends_) {
      clearTimeout(wait);
      wait = setTimeout(() => open(to), 150);
    }
  };
  grid.onkeydown = (event) => {
    const at = cards.indexOf(event.target.closest(".card"));
    if (at < 0) return;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: cards.length - 1 };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const held = event.ctrlKey || event.metaKey;
    if (key in steps) move(cards[Math.max(0, Math.min(cards.length - 1, steps[key]))], event.shiftKey);
    else if (key === "Enter") open(cards[at]);
    else if (key === "g" && !held) nextGroup(cards, at, event.shiftKey ? -1 : 1, move, setTriggerValue);
    else if (acting && held && key === "a") my.chosen = new Set(cards.map(idOf));
    else if (acting && held && key === "z") act("undo");
    else if (acting && !held && (key === " " || key === "x")) toggle(my, idOf(cards[at]));
    else if (acting && !held && key === "l") bar.querySelector("input").focus();
    else if (acting && !held && ACTIONS.some(([, , own]) => own === key)) act(ACTIONS.find(([, , own]) => own === key)[0]);
    else if (key === "Escape" && acting && (my.chosen.size || my.everything)) clear(my);
    else if (key === "Escape" && data.selected !== null) setTriggerValue("open", -1);
    else return;
    event.preventDefault();
    show();
  };
  // While the page is laid out anew nothing has the focus for a moment.
  const unfocused = (event) => {
    if (!acting || document.activeElement !== document.body) return;
    if (event.key === "Escape" && data.selected !== null) setTriggerValue("open", -1);
    else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) act("undo");
  };
  window.addEventListener("keydown", unfocused);
  return () => {
    window.removeEventListener("keydown", unfocused);
    window.removeEventListener("pointerdown", letGo, true);
    letGo();
    clearTimeout(wait);
    clearTimeout(again);
    skip?.remove();
  };
}

// Put the tiles and the heads of groups in their places; those that stay are kept, with their focus.
function lay(grid, data) {
  const before = new Map([...grid.querySelectorAll(".card")].map((c) => [c.dataset.drawn, c]));
  const cards = data.cards.map((c) => {
    const drawn = JSON.stringify({ ...c, decision: null });
    const element = before.get(drawn) ?? tile(c);
    element.dataset.drawn = drawn;
    return element;
  });
  const nodes = data.groups.length ? data.groups.map((g) => group(g, cards)) : cards;
  const now = [...grid.children];
  if (now.length === nodes.length && now.every((node, i) => node === nodes[i])) return cards;
  const old = [...grid.querySelectorAll(".card")];
  const held = grid.getRootNode().activeElement?.closest?.(".card");
  const at = old.indexOf(held);
  grid.replaceChildren(...nodes);
  if (held) (cards.includes(held) ? held : cards[Math.min(at, cards.length - 1)])?.focus({ preventScroll: true });
  return cards;
}

function group(given, cards) {
  const element = document.createElement("div");
  element.className = "group";
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", [given.title, ...given.notes.map((n) => n[1])].join(", "));
  const head = part("head", "");
  head.setAttribute("aria-hidden", "true");
  head.append(part("title", given.title), ...given.notes.map(([kind, text]) => part("note " + kind, text)));
  element.append(head, ...cards.slice(given.first, given.last));
  return element;
}

// The first tile of the next group, or of the one before; beyond the page, the next page.
function nextGroup(cards, at, way, move, setTriggerValue) {
  const groups = [...new Set(cards.map((c) => c.parentElement))];
  const to = groups[groups.indexOf(cards[at].parentElement) + way];
  if (to?.classList.contains("group")) move(to.querySelector(".card"), false);
  else if (!to) setTriggerValue("turn", way);
}

// The first thing that Tab reaches on the page: straight to the samples.
function skipLink(focus) {
  document.querySelector(".winnow-skip")?.remove();
  const link = document.createElement("button");
  link.className = "winnow-skip";
  link.textContent = "Skip to the samples";
  link.onclick = focus;
  document.body.prepend(link);
  return link;
}
