// The chosen filters, the clips that match them, and how many clips each further choice would leave.

const FACETS = ["verdict", "category", "group", "reason"];
const index = { clips: [], status: [], category: [], reason: [], text: null };

/** The state that the address holds: every facet (null: any), the search words and the page from 1. */
function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = { q: given.get("q") || "", page: Math.max(1, parseInt(given.get("page"), 10) || 1) };
  for (const facet of FACETS) state[facet] = given.get(facet);
  return state;
}

function formatState(state) {
  const out = new URLSearchParams();
  for (const facet of FACETS) if (state[facet] !== null) out.set(facet, state[facet]);
  if (state.q) out.set("q", state.q);
  if (state.page > 1) out.set("page", state.page);
  return out.toString();
}

const isFiltered = (state) => Boolean(state.q) || FACETS.some((facet) => state[facet] !== null);

/** Replace the numbers of data/index.js by their words. */
function readIndex(data) {
  Object.assign(index, { status: data.status, category: data.category, reason: data.reason });
  index.clips = data.clips.map(([status, reason, subjects, isClip]) => ({
    isClip: Boolean(isClip),
    status: data.status[status],
    reason: reason < 0 ? null : data.reason[reason],
    subjects: subjects.map(([category, why]) => ({
      category: data.category[category][0], group: data.category[category][1], reason: why < 0 ? null : data.reason[why],
    })),
  }));
}

/** Whether one subject matches category, group and reason. A clip's own reason counts for all its subjects. */
function matchesSubject(subject, clip, state) {
  return (state.category === null || subject.category === state.category)
    && (state.group === null || subject.group === state.group)
    && (state.reason === null || subject.reason === state.reason || clip.reason === state.reason);
}

function matchesClip(clip, position, state) {
  if (state.verdict !== null && clip.status !== state.verdict) return false;
  if (state.q && !(index.text && splitWords(state.q).every((word) => index.text[position].includes(word)))) return false;
  if (state.category === null && state.group === null) {
    if (state.reason === null || clip.reason === state.reason) return true;
  }
  return clip.subjects.some((subject) => matchesSubject(subject, clip, state));
}

const splitWords = (query) => query.toLowerCase().split(/\s+/).filter(Boolean);

function findMatches(state) {
  const found = [];
  index.clips.forEach((clip, position) => { if (matchesClip(clip, position, state)) found.push(position); });
  return found;
}

/** [option, number of clips that it would show], ...; the most first. */
function countOptions(facet, state) {
  const others = { ...state, [facet]: null };
  const counts = new Map();
  index.clips.forEach((clip, position) => {
    if (!matchesClip(clip, position, others)) return;
    const here = new Set();
    if (facet === "verdict") here.add(clip.status);
    else {
      for (const subject of clip.subjects) if (subject[facet] && matchesSubject(subject, clip, others)) here.add(subject[facet]);
      if (facet === "reason" && clip.reason) here.add(clip.reason);
    }
    for (const option of here) counts.set(option, (counts.get(option) || 0) + 1);
  });
  if (state[facet] !== null && !counts.has(state[facet])) counts.set(state[facet], 0);
  return [...counts].sort((a, b) => b[1] - a[1] || String(a[0]).localeCompare(String(b[0])));
}

/**
 * A button that opens a list of options with their counts; long lists can be searched.
 * getLabel(option) returns its text; choose(option or null) is called on a choice.
 */
function buildPicker(name, { getLabel, choose }) {
  const search = h("input", { type: "search", placeholder: `Find a ${name}`, "aria-label": `Find a ${name}`, autocomplete: "off" });
  const list = h("ul", {});
  const panel = h("div", { class: "panel", hidden: true, id: `panel-${name}` }, search, list);
  const button = h("button", { type: "button", class: "pick", "aria-expanded": "false", "aria-controls": panel.id });
  const root = h("div", { class: "picker", "data-facet": name }, button, panel);
  let shown = [], current = null;

  function open(wanted) {
    panel.hidden = !wanted;
    button.setAttribute("aria-expanded", String(wanted));
    if (!wanted) return;
    search.value = "";
    search.hidden = shown.length < 8;
    draw();
    (search.hidden ? list.querySelector("button") : search)?.focus();
  }
  function pick(option) {
    open(false);
    button.focus();
    choose(option);
  }
  function draw() {
    const wanted = search.value.trim().toLowerCase();
    const fitting = shown.filter(([option]) => getLabel(option).toLowerCase().includes(wanted) || String(option).toLowerCase().includes(wanted));
    list.replaceChildren(
      ...(current === null || wanted ? [] : [h("li", {}, h("button", { type: "button", class: "any", onclick: () => pick(null) }, `Any ${name}`))]),
      ...fitting.map(([option, n]) => h("li", {}, h("button", {
        type: "button", "aria-pressed": String(option === current), "data-option": option, title: option, onclick: () => pick(option === current ? null : option),
      }, h("span", {}, getLabel(option)), h("span", { class: "n" }, formatCount(n))))),
      ...(fitting.length ? [] : [h("li", { class: "none" }, wanted ? `No ${name} is called that` : "Nothing to choose from")]),
    );
  }
  button.addEventListener("click", () => open(panel.hidden));
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") list.querySelector("button[data-option]")?.click();
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) { open(false); button.focus(); event.stopPropagation(); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !panel.hidden) {
      const stops = [...panel.querySelectorAll("input:not([hidden]), button")];
      stops[stops.indexOf(document.activeElement) + step]?.focus();
      event.preventDefault();
    }
  });
  root.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !root.contains(event.relatedTarget)) open(false);
  });
  document.addEventListener("pointerdown", (event) => { if (!root.contains(event.target)) open(false); });

  return {
    root,
    update(found, chosen) {
      shown = found;
      current = chosen;
      button.replaceChildren(h("span", { class: "what" }, formatName(name)), h("span", { class: "which" }, chosen === null ? "any" : getLabel(chosen)));
      button.classList.toggle("active", chosen !== null);
      if (!panel.hidden) draw();
    },
  };
}
