// A picture that opens over the whole window: 0 fits it, 1 shows it pixel by pixel, the wheel and + and − enlarge it, the
// mouse and the arrows move it, Escape closes.
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".zoom");
  const opens = root.querySelector(".opens");
  const dialog = root.querySelector("dialog");
  const stage = root.querySelector(".stage");
  const image = stage.querySelector("img");
  const small = opens.querySelector("img");
  const find = (name) => root.querySelector(name);
  const set = (element, url) => element.getAttribute("src") !== url && element.setAttribute("src", url);

  small.onload = () => small.classList.toggle("sharp", small.naturalWidth <= 64);
  set(small, data.small);
  opens.setAttribute("aria-label", `enlarge ${data.name}`);
  find(".about").textContent = data.note;
  find(".title").textContent = data.name + (data.width ? ` · ${data.width} × ${data.height} pixels` : "") + (data.note ? ` · ${data.note}` : "");
  stage.setAttribute("aria-label", data.name);

  const at = (root.winnowAt ??= { scale: 1, x: 0, y: 0, fitted: true });
  // Pixels of the original, also while the small picture stands in.
  const width = () => data.width || image.naturalWidth || 1;
  const height = () => data.height || image.naturalHeight || 1;
  const place = () => {
    image.style.width = width() + "px";
    image.style.transform = `translate(${at.x}px, ${at.y}px) scale(${at.scale})`;
    image.classList.toggle("sharp", at.scale >= 2 || Math.max(width(), height()) <= 64);
    find("output").textContent = `${Math.round(100 * at.scale)} %`;
  };
  const fit = () => {
    at.fitted = true;
    at.scale = Math.min(stage.clientWidth / width(), stage.clientHeight / height());
    at.x = (stage.clientWidth - width() * at.scale) / 2;
    at.y = (stage.clientHeight - height() * at.scale) / 2;
    place();
  };
  // Around a point of the stage, which stays where it is.
  const zoom = (scale, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const to = Math.max(0.02, Math.min(64, scale));
    at.x = x - ((x - at.x) * to) / at.scale;
    at.y = y - ((y - at.y) * to) / at.scale;
    at.scale = to;
    at.fitted = false;
    place();
  };
  const move = (x, y) => {
    at.x += x;
    at.y += y;
    at.fitted = false;
    place();
  };
  const does = { fit, whole: () => zoom(1), in: () => zoom(at.scale * 1.25), out: () => zoom(at.scale / 1.25), close: () => dialog.close() };
  image.onload = () => (at.fitted ? fit() : place());
  set(image, data.full || data.small);
  if (dialog.open && at.fitted) fit();

  opens.onclick = () => {
    dialog.showModal();
    fit();
    stage.focus();
    if (!data.full) setTriggerValue("opened", true);
  };
  dialog.onclose = () => opens.focus();
  for (const button of root.querySelectorAll("[data-does]")) button.onclick = does[button.dataset.does];
  dialog.onkeydown = (event) => {
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    const keys = { 0: "fit", f: "fit", 1: "whole", "+": "in", "=": "in", "-": "out" };
    event.stopPropagation();
    if (event.key in steps) move(...steps[event.key]);
    else if (event.key in keys) does[keys[event.key]]();
    else return;
    event.preventDefault();
  };
  const wheel = (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoom(at.scale * Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
  };
  stage.addEventListener("wheel", wheel, { passive: false });
  stage.onpointerdown = (event) => stage.setPointerCapture(event.pointerId);
  stage.onpointermove = (event) => stage.hasPointerCapture(event.pointerId) && move(event.movementX, event.movementY);
  stage.ondblclick = () => (at.fitted ? zoom(1) : fit());
  const resized = () => dialog.open && at.fitted && fit();
  window.addEventListener("resize", resized);
  return () => {
    stage.removeEventListener("wheel", wheel);
    window.removeEventListener("resize", resized);
  };
}
