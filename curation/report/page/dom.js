"use strict";
// Building blocks. Text enters the page only as text nodes and attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fillNode(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "tip") setTip(node, value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; attributes `onclick` etc. are listeners, `style` is an object, `tip` a tooltip. */
function h(tag, attributes, ...children) {
  return fillNode(document.createElement(tag), attributes, children);
}

/** An SVG element, likewise. */
function s(tag, attributes, ...children) {
  return fillNode(document.createElementNS(SVG, tag), attributes, children);
}

const byId = (id) => document.getElementById(id);

function fillSection(id, title, lead, ...children) {
  const node = byId(id);
  node.replaceChildren();
  fillNode(node, {}, [h("h2", { id: `${id}-title` }, title), lead && h("p", { class: "lead" }, lead), ...children]);
  return node;
}

/** Draw into `box` now and whenever its width changes: `draw(width)` returns the new content. */
function redrawOnResize(box, draw) {
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width === last || width === 0) return;
    last = width;
    box.replaceChildren(draw(width));
  }).observe(box);
  return box;
}

// One tooltip for the page. Its content is [title, [[label, value, className?], ...]].
const tips = new WeakMap();

function setTip(node, content) {
  tips.set(node, content);
  node.setAttribute("data-tip", "");
}

function showTip(event) {
  const box = byId("tip");
  const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  const content = target && tips.get(target);
  if (!content) {
    box.hidden = true;
    return;
  }
  const [title, rows] = content;
  box.replaceChildren(
    h("strong", {}, title),
    h("dl", {}, rows.map(([label, value, name]) => [h("dt", { class: name }, label), h("dd", {}, value)])),
  );
  box.hidden = false;
  const at = target.getBoundingClientRect();
  const size = box.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 8);
  const above = at.top - size.height - 10;
  box.style.setProperty("left", `${Math.max(8, left)}px`);
  box.style.setProperty("top", `${above > 8 ? above : Math.min(at.bottom + 10, innerHeight - size.height - 8)}px`);
}

for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, showTip);
document.addEventListener("scroll", () => { byId("tip").hidden = true; }, { passive: true });

/** Scroll to a section; smoothly, unless the reader asked for reduced motion. */
function goTo(id) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId(id).scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}
