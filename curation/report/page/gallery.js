// Pages of cards, loaded on demand, and the enlarged picture.

const gallery = { state: readState(), found: [], files: new Map(), waiting: new Map(), turn: 0, parts: null };
const FILES_HELD = 24; // data files that stay in memory

/** Called by every file of data/. */
function repriseData(name, value) {
  gallery.waiting.get(name)?.(value);
  gallery.waiting.delete(name);
}

/** Load a data file by name, through a script element: a page opened from disk cannot fetch. */
function loadData(name) {
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

const countPages = () => Math.max(1, Math.ceil(gallery.found.length / overview.gallery.per_page));

/** Change the filters or the page; adds an entry to the history unless `replace`. */
function setState(change, replace = false) {
  const next = { ...gallery.state, page: 1, ...change };
  const address = `#${formatState(next)}`;
  if (replace) history.replaceState(null, "", address);
  else if (address !== (location.hash || "#")) history.pushState(null, "", address);
  gallery.state = next;
  return showState();
}

/** Show only these clips and remove all other filters; the charts call it. */
function showOnly(change) {
  setState({ verdict: null, category: null, group: null, reason: null, q: "", ...change });
  goTo("gallery");
}

function turnPage(step) {
  const page = gallery.state.page + step;
  if (page < 1 || page > countPages()) return;
  setState({ page });
  byId("gallery").scrollIntoView({ block: "start" });
}

function drawGallery() {
  const { clips, of } = overview.gallery;
  if (!clips) {
    fillSection("gallery", "Gallery", "The shards hold no clip.");
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
    category: buildPicker("category", { getLabel: formatName, choose: (category) => setState({ category }) }),
    group: buildPicker("group", { getLabel: formatName, choose: (group) => setState({ group }) }),
    reason: buildPicker("reason", { getLabel: formatReason, choose: (reason) => setState({ reason }) }),
  };
  const summary = h("p", { class: "summary", role: "status" });
  const list = h("div", { class: "cards" });
  const pagers = [buildPager(), buildPager()];
  gallery.parts = { verdicts, search, pickers, summary, list, pagers };
  fillSection("gallery", "Gallery",
    clips < of ? `${formatCount(clips)} of ${formatCount(of)} clips, drawn evenly from all shards.` : null,
    h("div", { class: "filters" }, verdicts, h("div", { class: "picks" }, Object.values(pickers).map((each) => each.root)), search),
    h("div", { class: "above" }, summary, pagers[0].root), list, pagers[1].root);
  loadData("index").then((data) => { readIndex(data); return showState(); }).catch(showProblem);
}

function showProblem(error) {
  gallery.parts.list.replaceChildren(h("p", { class: "notice" }, error.message));
}

function buildPager() {
  const back = h("button", { type: "button", "aria-label": "Previous page", onclick: () => turnPage(-1) }, "←");
  const on = h("button", { type: "button", "aria-label": "Next page", onclick: () => turnPage(1) }, "→");
  const field = h("input", { type: "text", inputmode: "numeric", "aria-label": "Page", size: 3 });
  const total = h("span", {});
  field.addEventListener("change", () => {
    const page = Math.min(Math.max(1, parseInt(field.value, 10) || 1), countPages());
    field.value = page;
    if (page !== gallery.state.page) turnPage(page - gallery.state.page);
  });
  const root = h("nav", { class: "pager", "aria-label": "Pages" }, back, h("label", {}, field, total), on);
  return {
    root,
    update(page, pages) {
      root.hidden = pages < 2;
      field.value = page;
      total.replaceChildren(` of ${formatCount(pages)}`);
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
    if (state.q && !index.text) index.text = (await loadData("text")).map((text) => text.toLowerCase());
    if (!index.clips.length) return; // not loaded yet; its loading calls this function again
    if (turn !== gallery.turn) return;
    gallery.found = findMatches(state);
    state.page = Math.min(state.page, countPages());
    drawControls();
    const { per_page: size, per_file: perFile } = overview.gallery;
    const shown = gallery.found.slice((state.page - 1) * size, state.page * size);
    const names = [...new Set(shown.map((position) => Math.floor(position / perFile)))];
    parts.list.setAttribute("aria-busy", "true");
    const files = new Map(await Promise.all(names.map(async (n) => [n, await loadData(`clips-${String(n).padStart(5, "0")}`)])));
    if (turn !== gallery.turn) return;
    parts.list.replaceChildren(...(shown.length
      ? shown.map((position) => buildClipCard(files.get(Math.floor(position / perFile))[position % perFile], state))
      : [h("div", { class: "empty" }, h("p", {}, "No clip matches."), h("button", { type: "button", onclick: clearFilters }, "Clear filters"))]));
    parts.list.setAttribute("aria-busy", "false");
  } catch (error) {
    if (turn === gallery.turn) showProblem(error);
  }
}

const clearFilters = () => setState({ verdict: null, category: null, group: null, reason: null, q: "" });

function drawControls() {
  const { state, parts, found } = gallery;
  const verdicts = countOptions("verdict", state);
  const order = ["kept", "rejected", "failed", "open"];
  verdicts.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
  const all = verdicts.reduce((a, [, n]) => a + n, 0);
  parts.verdicts.replaceChildren(...[[null, all], ...verdicts].map(([option, n]) => h("button", {
    type: "button", "aria-pressed": String(state.verdict === option), "data-option": option === null ? "all" : option, onclick: () => setState({ verdict: option }),
  }, option === null ? "All" : getStatusTitle(option), h("span", { class: "n" }, formatCount(n)))));
  for (const [facet, each] of Object.entries(parts.pickers)) each.update(countOptions(facet, state), state[facet]);
  if (document.activeElement !== parts.search) parts.search.value = state.q;
  const size = overview.gallery.per_page, first = (state.page - 1) * size + 1;
  const clips = found.filter((position) => index.clips[position].isClip).length, videos = found.length - clips;
  parts.summary.dataset.total = found.length;
  parts.summary.replaceChildren(
    clips || !videos ? h("b", {}, formatAmount(clips, "clip")) : "",
    clips && videos ? " and " : "",
    ...(videos ? [h("b", {}, formatAmount(videos, "video")), " without a clip"] : []),
    found.length > size ? `, showing ${formatCount(first)} to ${formatCount(Math.min(found.length, first + size - 1))}` : "",
    isFiltered(state) ? h("button", { type: "button", class: "link", onclick: clearFilters }, "Clear filters") : "");
  for (const each of parts.pagers) each.update(state.page, countPages());
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
