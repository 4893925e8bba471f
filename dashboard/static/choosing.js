// Which tiles are selected: by key, as a range, in a box that the mouse draws. Remembered beyond a drawing of the grid.
function remembered(name) {
  window.winnowGrids ??= {};
  return (window.winnowGrids[name] ??= {
    chosen: new Set(), anchor: null, everything: false, scope: null, unconfirmed: null,
    client: Math.random().toString(36).slice(2), seq: 0, pending: [],
  });
}

function toggle(my, id) {
  my.everything = false;
  if (!my.chosen.delete(id)) my.chosen.add(id);
  my.anchor = id;
}

// The tiles between the anchor and this one, both included, and nothing else.
function extend(my, cards, to) {
  const ids = cards.map((c) => Number(c.dataset.id));
  const from = Math.max(0, ids.indexOf(my.anchor ?? to));
  const until = ids.indexOf(to);
  my.anchor ??= to;
  my.everything = false;
  my.chosen = new Set(ids.slice(Math.min(from, until), Math.max(from, until) + 1));
}

function clear(my) {
  my.chosen.clear();
  my.everything = false;
  my.unconfirmed = null;
}

// A box drawn with the mouse selects what it touches; with Ctrl or Shift it adds to what is selected.
function drawBox(my, grid, cards, started, changed) {
  const frame = grid.getBoundingClientRect();
  const from = [started.clientX - frame.left, started.clientY - frame.top];
  const before = started.ctrlKey || started.metaKey || started.shiftKey ? new Set(my.chosen) : new Set();
  let box = null;
  const move = (event) => {
    const now = grid.getBoundingClientRect();
    const to = [event.clientX - now.left, event.clientY - now.top];
    if (!box) {
      if (Math.hypot(to[0] - from[0], to[1] - from[1]) < 8) return;
      box = part("box", "");
      grid.parentElement.append(box);
    }
    const [left, right] = [Math.min(from[0], to[0]), Math.max(from[0], to[0])];
    const [top, bottom] = [Math.min(from[1], to[1]), Math.max(from[1], to[1])];
    Object.assign(box.style, { left: left + "px", top: top + "px", width: right - left + "px", height: bottom - top + "px" });
    my.chosen = new Set(before);
    my.everything = false;
    for (const card of cards) {
      const at = card.getBoundingClientRect();
      const outside = at.left - now.left > right || at.right - now.left < left || at.top - now.top > bottom || at.bottom - now.top < top;
      if (!outside) my.chosen.add(Number(card.dataset.id));
    }
    changed();
  };
  const stop = () => {
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", stop);
    window.removeEventListener("pointercancel", stop);
    if (!box) return;
    box.remove();
    // The click that follows the end of a drag opens nothing.
    const swallow = (event) => event.stopPropagation();
    window.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 50);
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", stop);
  window.addEventListener("pointercancel", stop);
}
