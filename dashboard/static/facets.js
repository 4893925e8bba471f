// A class filter: a row per class with "n of N" as text and as a bar; a click adds or removes the class.
export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".facets");
  const most = Math.max(1, ...data.rows.map((r) => r.total));
  list.replaceChildren(
    ...data.rows.map((r) => {
      const row = document.createElement("button");
      const on = data.chosen.includes(r.label);
      row.className = "row" + (on ? " on" : "") + (r.n === 0 ? " none" : "");
      row.setAttribute("aria-pressed", on);
      row.setAttribute("aria-label", `given ${r.name}, ${r.n.toLocaleString("en")} of ${r.total.toLocaleString("en")} samples`);
      row.title = `${r.name}: ${r.n.toLocaleString("en")} of ${r.total.toLocaleString("en")}`;
      row.append(
        part("name", r.name),
        part("count", r.n === r.total ? r.total.toLocaleString("en") : `${r.n.toLocaleString("en")} of ${r.total.toLocaleString("en")}`),
        bar("total", r.total / most),
        bar("part", r.n / most),
      );
      row.onclick = () => setTriggerValue("toggle", r.label);
      return row;
    }),
  );
}

function part(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function bar(name, share) {
  const element = part("bar " + name, "");
  element.style.width = 100 * share + "%";
  return element;
}
