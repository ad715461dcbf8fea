// Pages of cards, loaded when they are needed; the enlarged picture.

const gallery = { state: readState(), found: [], files: new Map(), waiting: new Map(), turn: 0, parts: null };
const FILES_HELD = 24; // data files that stay in memory

/** Called by every file of data/. */
function repriseData(name, value) {
  gallery.waiting.get(name)?.(value);
  gallery.waiting.delete(name);
}

/** A data file by name, through a script element: a page opened from disk may not fetch. */
function load(name) {
  const held = gallery.files.get(name);
  if (held) {
    gallery.files.delete(name);
    gallery.files.set(name, held);
    return held;
  }
  const promise = new Promise((resolve, reject) => {
    const script = h("script", { src: `data/${name}.js?${overview.gallery.build}` });
    gallery.waiting.set(name, (value) => { script.remove(); resolve(value); });
    script.addEventListener("error", () => {
      script.remove();
      gallery.files.delete(name);
      reject(new Error(`data/${name}.js could not be loaded. It belongs beside this page, in the same folder.`));
    });
    document.head.append(script);
  });
  gallery.files.set(name, promise);
  for (const old of gallery.files.keys()) {
    if (gallery.files.size <= FILES_HELD) break;
    if (old !== "index" && old !== "text") gallery.files.delete(old);
  }
  return promise;
}

const pageCount = () => Math.max(1, Math.ceil(gallery.found.length / overview.gallery.per_page));

/** Change what is chosen; a new entry in the history unless `replace`. */
function setState(change, replace = false) {
  const next = { ...gallery.state, page: 1, ...change };
  const address = `#${stateHash(next)}`;
  if (replace) history.replaceState(null, "", address);
  else if (address !== (location.hash || "#")) history.pushState(null, "", address);
  gallery.state = next;
  return showState();
}

/** From a chart: only these clips, all other filters off. */
function showOnly(change) {
  setState({ verdict: null, category: null, group: null, reason: null, q: "", ...change });
  goTo("gallery");
}

function turnPage(step) {
  const page = gallery.state.page + step;
  if (page < 1 || page > pageCount()) return;
  setState({ page });
  byId("gallery").scrollIntoView({ block: "start" });
}

function drawGallery() {
  const { clips, of } = overview.gallery;
  if (!clips) {
    section("gallery", "Gallery", "The shards hold no clip.");
    return;
  }
  const verdicts = h("div", { class: "segments", role: "group", "aria-label": "Verdict", "data-facet": "verdict" });
  const search = h("input", { type: "search", class: "search", placeholder: "Search captions and paths", "aria-label": "Search captions and paths", value: gallery.state.q });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    // One entry in the history per search, not per letter.
    timer = setTimeout(() => setState({ q: search.value.trim() }, Boolean(gallery.state.q)), 160);
  });
  const pickers = {
    category: picker("category", { say: plain, choose: (category) => setState({ category }) }),
    group: picker("group", { say: plain, choose: (group) => setState({ group }) }),
    reason: picker("reason", { say: reasonText, choose: (reason) => setState({ reason }) }),
  };
  const summary = h("p", { class: "summary", role: "status" });
  const list = h("div", { class: "cards" });
  const pagers = [pager(), pager()];
  gallery.parts = { verdicts, search, pickers, summary, list, pagers };
  section("gallery", "Gallery",
    clips < of ? `${count(clips)} of ${count(of)} clips, drawn evenly from all shards.` : null,
    h("div", { class: "filters" }, verdicts, h("div", { class: "picks" }, Object.values(pickers).map((each) => each.root)), search),
    h("div", { class: "above" }, summary, pagers[0].root), list, pagers[1].root);
  load("index").then((data) => { readIndex(data); return showState(); }).catch(sayProblem);
}

function sayProblem(error) {
  gallery.parts.list.replaceChildren(h("p", { class: "notice" }, error.message));
}

function pager() {
  const back = h("button", { type: "button", "aria-label": "Previous page", onclick: () => turnPage(-1) }, "←");
  const on = h("button", { type: "button", "aria-label": "Next page", onclick: () => turnPage(1) }, "→");
  const field = h("input", { type: "text", inputmode: "numeric", "aria-label": "Page", size: 3 });
  const total = h("span", {});
  field.addEventListener("change", () => {
    const page = Math.min(Math.max(1, parseInt(field.value, 10) || 1), pageCount());
    field.value = page;
    if (page !== gallery.state.page) turnPage(page - gallery.state.page);
  });
  const root = h("nav", { class: "pager", "aria-label": "Pages" }, back, h("label", {}, field, total), on);
  return {
    root,
    update(page, pages) {
      root.hidden = pages < 2;
      field.value = page;
      total.replaceChildren(` of ${count(pages)}`);
      back.disabled = page <= 1;
      on.disabled = page >= pages;
    },
  };
}

/** Show what `gallery.state` says. */
async function showState() {
  const turn = ++gallery.turn;
  const { state, parts } = gallery;
  try {
    if (state.q && !index.text) index.text = (await load("text")).map((text) => text.toLowerCase());
    if (!index.clips.length) return; // the index has not arrived; it will call again
    if (turn !== gallery.turn) return;
    gallery.found = matching(state);
    state.page = Math.min(state.page, pageCount());
    drawControls();
    const { per_page: size, per_file: perFile } = overview.gallery;
    const shown = gallery.found.slice((state.page - 1) * size, state.page * size);
    const names = [...new Set(shown.map((position) => Math.floor(position / perFile)))];
    parts.list.setAttribute("aria-busy", "true");
    const files = new Map(await Promise.all(names.map(async (n) => [n, await load(`clips-${String(n).padStart(5, "0")}`)])));
    if (turn !== gallery.turn) return;
    parts.list.replaceChildren(...(shown.length
      ? shown.map((position) => clipCard(files.get(Math.floor(position / perFile))[position % perFile], state))
      : [h("div", { class: "empty" }, h("p", {}, "No clip matches."), h("button", { type: "button", onclick: clearFilters }, "Clear filters"))]));
    parts.list.setAttribute("aria-busy", "false");
  } catch (error) {
    if (turn === gallery.turn) sayProblem(error);
  }
}

const clearFilters = () => setState({ verdict: null, category: null, group: null, reason: null, q: "" });

function drawControls() {
  const { state, parts, found } = gallery;
  const verdicts = options("verdict", state);
  const order = ["kept", "rejected", "failed", "open"];
  verdicts.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
  const all = verdicts.reduce((a, [, n]) => a + n, 0);
  parts.verdicts.replaceChildren(...[[null, all], ...verdicts].map(([option, n]) => h("button", {
    type: "button", "aria-pressed": String(state.verdict === option), "data-option": option === null ? "all" : option, onclick: () => setState({ verdict: option }),
  }, option === null ? "All" : statusTitle(option), h("span", { class: "n" }, count(n)))));
  for (const [facet, each] of Object.entries(parts.pickers)) each.update(options(facet, state), state[facet]);
  if (document.activeElement !== parts.search) parts.search.value = state.q;
  const size = overview.gallery.per_page, first = (state.page - 1) * size + 1;
  const clips = found.filter((position) => index.clips[position].isClip).length, videos = found.length - clips;
  parts.summary.dataset.total = found.length;
  parts.summary.replaceChildren(
    clips || !videos ? h("b", {}, some(clips, "clip")) : "",
    clips && videos ? " and " : "",
    ...(videos ? [h("b", {}, some(videos, "video")), clips ? " that gave none" : " that gave no clip"] : []),
    found.length > size ? `, showing ${count(first)} to ${count(Math.min(found.length, first + size - 1))}` : "",
    isFiltered(state) ? h("button", { type: "button", class: "link", onclick: clearFilters }, "Clear filters") : "");
  for (const each of parts.pagers) each.update(state.page, pageCount());
}

// ---- the enlarged picture -----------------------------------------------------------------------------------

function openLightbox(button) {
  const box = byId("lightbox");
  const all = [...button.closest(".card").querySelectorAll(".tile button")].filter((each) => each.offsetParent !== null);
  let at = all.indexOf(button);
  function show(step) {
    at = (at + step + all.length) % all.length;
    const image = all[at].querySelector("img");
    box.replaceChildren(
      h("div", { class: "stage-area" },
        h("button", { type: "button", class: "turn", "aria-label": "Previous picture", onclick: () => show(-1) }, "←"),
        h("img", { src: image.src, alt: image.alt, class: all[at].dataset.kind }),
        h("button", { type: "button", class: "turn", "aria-label": "Next picture", onclick: () => show(1) }, "→")),
      h("dl", {}, JSON.parse(all[at].dataset.lines).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => box.close() }, "×"));
    if (box.open) box.querySelector(step < 0 ? ".turn" : ".turn:last-child").focus();
  }
  show(0);
  box.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { show(step); event.preventDefault(); event.stopPropagation(); }
  };
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.onclose = () => button.focus();
  box.showModal();
  box.querySelector(".close").focus();
}
