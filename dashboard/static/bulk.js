// The bar under the grid: how many tiles are selected, what can be decided about them, and the way back.
const ACTIONS = [
  ["keep", "Keep", "k"], ["drop", "Drop", "d"], ["suggested", "Suggested label", "s"], ["unsure", "Unsure", "u"],
];
const QUESTION = { keep: "Keep", drop: "Drop", suggested: "Relabel to their suggestions:", relabel: "Relabel", unsure: "Mark as unsure:" };

// Made once, so that what has the focus keeps it; `show` writes what changes.
function makeBar(bar, act, commit, choose) {
  const button = (name, text, key, does) => {
    const found = document.createElement("button");
    found.className = name;
    found.type = "button";
    found.append(part("word", text));
    if (key) {
      const kbd = document.createElement("kbd");
      kbd.textContent = key === "Ctrl+Z" ? key : key.toUpperCase();
      found.append(kbd);
      found.setAttribute("aria-keyshortcuts", key === "Ctrl+Z" ? "Control+Z" : key);
    }
    found.onclick = does;
    return found;
  };
  const count = part("state", "");
  count.setAttribute("role", "status");
  const all = button("link all", "", "", () => choose("everything"));
  const none = button("link none", "Clear", "", () => choose("none"));
  const decide = part("decide", "");
  decide.append(...ACTIONS.map(([name, text, key]) => button("do to-" + name, text, key, () => act(name))));
  const to = document.createElement("input");
  const names = document.createElement("datalist");
  names.id = "classes";
  to.setAttribute("list", "classes");
  to.setAttribute("aria-label", "relabel to another class");
  to.placeholder = "Relabel to… (L)";
  to.onkeydown = (event) => {
    event.stopPropagation();
    const label = event.key === "Enter" ? [...names.children].findIndex((o) => o.value === to.value) : -1;
    if (label >= 0) {
      act("relabel", label);
      to.value = "";
    } else if (event.key === "Escape") choose("back");
  };
  decide.append(to, names);
  const ask = part("ask", "");
  const yes = button("yes", "", "", () => commit());
  ask.append(part("question", ""), yes, button("no", "Cancel", "", () => choose("back")));
  const undo = button("undo", "Undo", "Ctrl+Z", () => act("undo"));
  bar.append(count, all, none, decide, ask, undo);
  bar.onkeydown = (event) => {
    if (event.key === "Escape") choose("back");
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && event.target !== to) {
      event.preventDefault();
      act("undo");
    }
  };
}

function showBar(bar, my, acting, onPage, focused) {
  const find = (name) => bar.querySelector(name);
  const n = my.everything ? acting.total : my.chosen.size;
  const write = (element, text) => element.textContent !== text && (element.textContent = text);
  write(find(".state"), n ? `${n.toLocaleString("en")} selected` : my.pending.length ? "saving…" : acting.message || "Space selects");
  find(".state").classList.toggle("wrong", !n && acting.wrong && !my.pending.length);
  const link = my.everything || acting.total <= onPage ? "" : `Select all ${acting.total.toLocaleString("en")} that match`;
  const whole = acting.total <= onPage && my.chosen.size < onPage ? `Select all ${onPage.toLocaleString("en")}` : "";
  write(find(".all .word"), link || whole);
  find(".all").hidden = !(link || whole);
  find(".none").hidden = !n;
  find(".decide").hidden = my.unconfirmed !== null;
  for (const button of bar.querySelectorAll(".do")) button.disabled = !n && !focused;
  const names = find("datalist");
  if (names.children.length !== acting.classes.length)
    names.replaceChildren(...acting.classes.map((name) => Object.assign(document.createElement("option"), { value: name })));
  find(".ask").hidden = my.unconfirmed === null;
  if (my.unconfirmed) {
    const { action, n, name } = my.unconfirmed;
    write(find(".question"), `${QUESTION[action]} ${n.toLocaleString("en")} samples${name ? ` to ${name}` : ""}?`);
    write(find(".yes .word"), `Yes, ${n.toLocaleString("en")}`);
  }
}
