// The audit: one subject, one question at a time. The server sends the verdict only after the answers, so this page
// cannot reveal it.

const ANSWERS = [["yes", "Yes", "1"], ["no", "No", "2"], ["unsure", "Can't tell", "3"]];
const ANSWER_TITLES = { yes: "Yes", no: "No", unsure: "Can't tell" };
const KEYS = { 1: "yes", y: "yes", 2: "no", n: "no", 3: "unsure", " ": "unsure" };

const audit = {
  items: [], // {id, done}, in the order of the sample
  at: 0, // position in it
  item: null, // the current subject, as the server describes it
  active: null, // name of the current question
  view: null, // the enlarged picture; null: the frame
  mask: true,
  held: new Map(), // id -> promise of an item that is loaded in advance
  history: [], // [id, question] of the answers since the page was opened
  last: null, // the subject judged before this one, with its verdict
  pace: null, // median seconds for a subject
  sending: Promise.resolve(),
  busy: 0, // answers not yet confirmed by the server
  turn: 0,
};

// ---- requests ---------------------------------------------------------------------------------------

async function requestJson(path, body) {
  let reply;
  try {
    reply = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error("The audit is not running any more. Start the same command again: all answers so far are saved.");
  }
  const data = await reply.json();
  if (!reply.ok) throw new Error(data.error);
  return data;
}

const itemPath = (id) => `/api/items/${encodeURIComponent(id)}`;
const picturePath = (id, name) => `/pictures/${encodeURIComponent(id)}/${encodeURIComponent(name)}`;
const clipPath = (id) => `/clips/${encodeURIComponent(id)}`;

/** Fetch a subject; `ahead`: in advance, with its pictures. */
function fetchItem(id, ahead = false) {
  const held = audit.held.get(id);
  if (held) return held;
  const promise = requestJson(itemPath(id)).then((item) => {
    if (ahead) for (const name of [item.has_frame && "frame", item.has_mask && "mask", item.box && "crop", item.has_mask && "segment"]) if (name) new Image().src = picturePath(id, name);
    return item;
  });
  promise.catch(() => audit.held.delete(id));
  if (ahead) audit.held.set(id, promise);
  return promise;
}

function showProblem(error, again) {
  byId("problem").replaceChildren(h("p", { class: "notice" }, error.message,
    h("button", { type: "button", class: "link", onclick: () => { byId("problem").replaceChildren(); again(); } }, "Try again")));
}

// ---- the clock: how long a question was shown -------------------------------------------------------------------

const stopwatch = { since: 0, sum: 0 };

function startClock() {
  stopwatch.sum = 0;
  stopwatch.since = document.hidden ? 0 : performance.now();
}

function readClock() {
  return (stopwatch.sum + (stopwatch.since ? performance.now() - stopwatch.since : 0)) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && stopwatch.since) {
    stopwatch.sum += performance.now() - stopwatch.since;
    stopwatch.since = 0;
  } else if (!document.hidden && !stopwatch.since) stopwatch.since = performance.now();
});

// ---- moving between subjects ---------------------------------------------------------------------------------

const listQuestions = (item) => [...item.questions, ...(item.generated || []).map((each) => each.question)];
const findOpenQuestion = (item) => (listQuestions(item).find(({ name }) => !item.answers[name]) || {}).name || null;

/** Position of the next subject that is not done, from `from` on and then from the start; -1: all are done. */
function findOpenItem(from) {
  const after = audit.items.findIndex((each, at) => at >= from && !each.done);
  return after >= 0 ? after : audit.items.findIndex((each) => !each.done);
}

async function visitItem(at, question) {
  const turn = ++audit.turn;
  setBusy(true);
  try {
    const item = await fetchItem(audit.items[at].id);
    if (turn !== audit.turn) return;
    audit.held.delete(item.id);
    Object.assign(audit, { at, item, active: question || findOpenQuestion(item), view: null });
    startClock();
    drawItem();
    setBusy(false);
    const next = audit.items[at].done ? at + 1 : findOpenItem(at + 1);
    if (next >= 0 && next < audit.items.length && next !== at) fetchItem(audit.items[next].id, true).catch(() => {});
  } catch (error) {
    if (turn !== audit.turn) return;
    setBusy(false);
    showProblem(error, () => visitItem(at, question));
  }
}

/** While the next view loads, the page still shows the one before. */
const setBusy = (busy) => document.querySelector("main").setAttribute("aria-busy", String(busy));

function goToNext() {
  const next = findOpenItem(audit.at + 1);
  if (next < 0) showFigures();
  else visitItem(next);
}

function goToNeighbour(by) {
  const at = audit.at + by;
  if (audit.busy || at < 0 || at >= audit.items.length) return;
  visitItem(at);
}

// ---- answering -----------------------------------------------------------------------------------------------------

/** Answer the current question. The page continues at once; answers are sent one after the other. */
function giveAnswer(value) {
  const { item, active } = audit;
  if (!active || byId("figures").hidden === false) return;
  audit.history.push([item.id, active]);
  const wasDone = audit.items[audit.at].done;
  sendAnswer(item, active, value, wasDone);
  if (!wasDone) audit.active = findOpenQuestion(item);
  else audit.active = null;
  startClock();
  drawJudge();
  drawView();
}

function sendAnswer(item, question, value, wasDone = false) {
  const body = { item: item.id, question, answer: value, seconds: Math.round(readClock() * 100) / 100 };
  if (value) item.answers[question] = value;
  else delete item.answers[question];
  audit.busy += 1;
  const sent = audit.sending.then(() => requestJson("/api/answers", body));
  audit.sending = sent.then(
    (fresh) => { audit.busy -= 1; applyReply(fresh, wasDone); },
    (error) => {
      audit.busy -= 1;
      // An answer that the server does not have must not look saved.
      if (!audit.busy && audit.item.id === item.id) showProblem(error, () => visitItem(audit.at));
    });
  return audit.sending;
}

/** Handle the reply to an answer: it can hold more questions, or the verdict. */
function applyReply(fresh, wasDone) {
  const entry = audit.items.find(({ id }) => id === fresh.id);
  entry.done = Boolean(fresh.reveal);
  audit.pace = fresh.seconds;
  drawProgress();
  if (audit.item.id !== fresh.id || audit.busy) return;
  const opened = !audit.item.generated && fresh.generated;
  audit.item = fresh;
  if (fresh.reveal && !wasDone) {
    audit.last = fresh;
    goToNext();
    return;
  }
  if (!audit.active && !fresh.reveal) {
    audit.active = findOpenQuestion(fresh);
    startClock();
  }
  if (opened || fresh.reveal || wasDone) {
    drawJudge();
    drawView();
  }
}

/** Take back the latest answer: of this subject, or else of the one before. */
async function undoAnswer() {
  if (audit.busy) return;
  let [id, question] = audit.history.pop() || [];
  if (!id) {
    const given = listQuestions(audit.item).filter(({ name }) => audit.item.answers[name]);
    if (given.length) [id, question] = [audit.item.id, given[given.length - 1].name];
    else {
      // The page was opened again since: take the nearest judged subject before this one.
      for (let at = audit.at - 1; at >= 0 && !id; at -= 1) if (audit.items[at].done) id = audit.items[at].id;
      if (!id) return;
    }
  }
  if (byId("item").hidden) hideFigures();
  if (audit.item.id !== id) await visitItem(audit.items.findIndex((each) => each.id === id));
  if (audit.item.id !== id) return;
  question ||= listQuestions(audit.item).at(-1).name;
  if (audit.last && audit.last.id === id) audit.last = null;
  startClock();
  await sendAnswer(audit.item, question, null);
  audit.active = question;
  drawJudge();
  drawView();
}

function chooseQuestion(question) {
  audit.active = question;
  audit.view = null;
  startClock();
  drawJudge();
  drawView();
}

function moveQuestion(by) {
  const names = listQuestions(audit.item).map(({ name }) => name);
  const at = audit.active ? names.indexOf(audit.active) + by : by > 0 ? 0 : names.length - 1;
  if (at >= 0 && at < names.length) chooseQuestion(names[at]);
}

// ---- drawing: the bar ----------------------------------------------------------------------------------------------

function drawProgress() {
  const done = audit.items.filter((each) => each.done).length, all = audit.items.length;
  const left = audit.pace && all > done ? (all - done) * audit.pace : 0;
  byId("count").replaceChildren(h("b", {}, formatCount(done)), ` of ${formatCount(all)} judged`,
    audit.pace ? h("span", { class: "pace muted" }, ` · ${formatDuration(audit.pace)} each${left ? `, about ${formatDuration(left)} to go` : ""}`) : "");
  const bar = byId("progress");
  fillNode(bar, { "aria-valuemin": 0, "aria-valuemax": all, "aria-valuenow": done, style: { "--done": `${all ? 100 * done / all : 0}%` } }, []);
}

// ---- drawing: the pictures --------------------------------------------------------------------------------------

function drawItem() {
  hideFigures();
  const { item } = audit;
  const seen = { view: h("div", { class: "view" }), judge: h("div", { class: "judge" }) };
  if (item.width && item.height) seen.view.style.setProperty("--shape", `${item.width} / ${item.height}`);
  audit.player = item.has_clip ? buildPlayer(item) : null;
  const tiles = [
    item.has_mask && buildTile("segment", "Cut-out", `The cut-out of ${item.phrase}`),
    item.box && item.has_frame && buildTile("crop", "Crop", `The crop of ${item.phrase}`),
    audit.player && (item.box && item.has_frame) && buildPlayerTile(item),
  ].filter(Boolean);
  byId("item").replaceChildren(
    h("div", { class: "look" }, seen.view, tiles.length > 0 && h("div", { class: `views ${tiles.length === 2 ? "two" : ""}` }, tiles)),
    seen.judge);
  Object.assign(audit, { parts: seen });
  document.title = `${item.phrase} · Audit`;
  byId("problem").replaceChildren();
  drawJudge(true);
  drawView();
  scrollTo({ top: 0, behavior: "instant" });
}

function buildPlayer(item) {
  const video = h("video", {
    src: clipPath(item.id), loop: true, playsinline: true, controls: true, preload: "auto", "aria-label": item.caption ? `Clip: ${item.caption}` : "The clip",
    onerror: () => video.replaceWith(h("p", { class: "gone" }, item.codec && item.codec !== "h264" ? `The clip is gone, or this browser cannot play it (${item.codec}).` : "The clip is gone, or this browser cannot play it.")),
  });
  video.muted = true; // an attribute set by a script does not mute
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.addEventListener("canplay", () => video.play().catch(() => {}), { once: true });
  return video;
}

function buildPlayerTile(item) {
  return h("figure", {}, h("div", { class: "frame player" }, audit.player),
    h("figcaption", {}, "Clip", item.at !== null && h("button", { type: "button", title: "Show this moment of the clip", onclick: () => { audit.player.pause(); audit.player.currentTime = item.at; } }, `found at ${formatClock(item.at)}`)));
}

function buildTile(name, title, alt) {
  const image = h("img", { src: picturePath(audit.item.id, name), alt, onerror: () => image.replaceWith(h("span", { class: "gone" }, "Not stored")) });
  return h("figure", {}, h("button", { type: "button", class: `frame ${name === "segment" ? "checkered" : ""}`, "data-view": name, "aria-pressed": "false", "aria-label": `Enlarge: ${alt}`, onclick: () => { audit.view = audit.view === name ? null : name; drawView(); } }, image),
    h("figcaption", {}, title));
}

/** The large picture: the frame, an enlarged tile, or a generated picture beside the subject. */
function drawView() {
  const { item, parts } = audit;
  const made = (item.generated || []).find(({ question }) => question.name === audit.active);
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === audit.view));
  const key = audit.view || (made ? made.name : "frame");
  if (parts.view.dataset.shows === key) {
    showMask();
    return;
  }
  parts.view.dataset.shows = key;
  parts.view.classList.toggle("checkered", key === "segment");
  if (audit.view) parts.view.replaceChildren(h("img", { src: picturePath(item.id, key), alt: key === "segment" ? `The cut-out of ${item.phrase}, enlarged` : `The crop of ${item.phrase}, enlarged` }));
  else if (made) parts.view.replaceChildren(buildComparison(item, made));
  else if (item.has_frame) parts.view.replaceChildren(buildFrame(item), item.has_mask ? maskToggle() : "");
  else parts.view.replaceChildren(audit.player || h("p", { class: "gone" }, "Neither the frame nor the clip is stored."));
  showMask();
}

function buildFrame(item) {
  const size = { width: item.width, height: item.height };
  const rect = ([x0, y0, x1, y1], name) => s("rect", { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0), class: `outline ${name}` });
  return s("svg", { viewBox: `0 0 ${item.width} ${item.height}`, role: "img", "aria-label": item.box ? `The frame, with a box around what should be ${item.phrase}` : "The frame" },
    s("image", { href: picturePath(item.id, "frame"), ...size, preserveAspectRatio: "none" }),
    item.has_mask && s("image", { href: picturePath(item.id, "mask"), ...size, class: "mask", preserveAspectRatio: "none" }),
    item.other && [rect(item.other, "under"), rect(item.other, "other")],
    item.box && [rect(item.box, "under"), rect(item.box, "")]);
}

const maskToggle = () => h("button", { type: "button", class: "toggle", "aria-pressed": String(audit.mask), onclick: toggleMask }, "Mask", h("kbd", {}, "M"));

function toggleMask() {
  audit.mask = !audit.mask;
  audit.view = null;
  drawView();
}

function showMask() {
  const layer = document.querySelector(".view .mask");
  if (layer) layer.style.setProperty("visibility", audit.mask ? "visible" : "hidden");
  const toggle = document.querySelector(".toggle");
  if (toggle) toggle.setAttribute("aria-pressed", String(audit.mask));
}

function buildComparison(item, made) {
  const title = getVariantTitle(made.variant);
  return h("div", { class: "versus" },
    h("figure", {}, h("img", { src: picturePath(item.id, "crop"), alt: `The subject: ${item.phrase}` }), h("figcaption", {}, h("b", {}, "The subject"))),
    h("figure", { class: made.variant === "redux" ? "checkered" : null }, h("img", { src: picturePath(item.id, made.name), alt: `${title} of it` }), h("figcaption", {}, h("b", {}, title))));
}

// ---- drawing: the judgement ------------------------------------------------------------------------------------------

function drawJudge(first = false) {
  const { item, parts, active } = audit;
  const all = listQuestions(item), now = all.find(({ name }) => name === active);
  const kind = [item.category, item.group].filter(Boolean).join(" · ");
  parts.judge.replaceChildren(...[
    h("div", { class: "title" }, h("h1", {}, item.phrase), h("p", { class: "kind" }, kind)),
    h("p", { class: "caption" }, item.caption ? highlightPhrase(item.caption, item.phrase) : h("span", { class: "muted" }, "No caption")),
    h("ol", { class: "checks", "aria-label": "Questions" }, all.map((question) => h("li", {},
      h("button", { type: "button", "data-question": question.name, "aria-current": question.name === active ? "step" : null, onclick: () => chooseQuestion(question.name) },
        question.title, item.answers[question.name] && h("span", { class: `given ${item.answers[question.name]}` }, ANSWER_TITLES[item.answers[question.name]]))))),
    now && h("div", { class: "ask", id: "ask", tabindex: "-1", role: "group", "aria-labelledby": "ask-title", "aria-describedby": "ask-hint" },
      h("h2", { id: "ask-title" }, now.title), h("p", { class: "hint", id: "ask-hint" }, now.hint),
      h("div", { class: "answers" }, ANSWERS.map(([value, words, key]) => h("button", { type: "button", class: value, "data-answer": value, "aria-pressed": String(item.answers[now.name] === value), "aria-keyshortcuts": key, onclick: () => giveAnswer(value) }, words, h("kbd", {}, key))))),
    item.reveal && buildOutcome(item),
    h("div", { class: "steps" },
      h("button", { type: "button", "data-step": "back", disabled: audit.at === 0, onclick: () => goToNeighbour(-1) }, "← Back"),
      h("button", { type: "button", "data-step": "undo", disabled: !canUndo(), onclick: undoAnswer }, "Undo", h("kbd", {}, "U")),
      h("button", { type: "button", "data-step": "on", class: "on", disabled: audit.at === audit.items.length - 1, onclick: () => goToNeighbour(1) }, audit.items[audit.at].done ? "Next →" : "Skip →")),
    audit.last && audit.last.id !== item.id && buildLastCard(audit.last, first),
  ].filter(Boolean));
  // The focus follows the question: a screen reader reads it, and the keys still work.
  if (now && !byId("keys").open) byId("ask").focus({ preventScroll: true });
}

const canUndo = () => audit.history.length > 0 || Object.keys(audit.item.answers).length > 0 || audit.items.slice(0, audit.at).some((each) => each.done);

/** The caption with the subject's phrase marked. */
function highlightPhrase(caption, phrase) {
  const at = phrase ? caption.toLowerCase().indexOf(phrase.toLowerCase()) : -1;
  if (at < 0) return caption;
  return [caption.slice(0, at), h("mark", {}, caption.slice(at, at + phrase.length)), caption.slice(at + phrase.length)];
}

function buildAgreement(agreed) {
  if (agreed === null) return h("span", { class: "muted" }, "You could not tell");
  return agreed ? h("span", { class: "agreed" }, "You agree") : h("span", { class: "disputed" }, "You disagree");
}

function buildRuling(reveal) {
  const chip = reveal.kept ? h("span", { class: "chip kept" }, "Kept") : h("span", { class: "chip rejected" }, "Rejected");
  const numbers = !reveal.kept && reveal.value !== null && reveal.threshold !== null
    ? ` ${formatNumber(reveal.value)} ${reveal.value < reveal.threshold ? "<" : ">"} ${formatBrief(reveal.threshold)}` : "";
  return h("span", { class: "ruling" }, chip, buildAgreement(reveal.agreed), !reveal.kept && h("span", { class: "why" }, formatName(formatReason(reveal.reason || "rejected")), h("span", { class: "muted" }, numbers)));
}

/** The verdict on the subject before, shown beside the next one. */
function buildLastCard(item, fresh) {
  return h("button", { type: "button", class: `last ${fresh ? "fresh" : ""} ${item.box && item.has_frame ? "" : "bare"}`, title: "Look at it again", onclick: () => visitItem(audit.items.findIndex(({ id }) => id === item.id)) },
    item.box && item.has_frame && h("img", { src: picturePath(item.id, "crop"), alt: "" }),
    h("span", { role: "status" }, h("span", { class: "who" }, `Before: ${item.phrase}`), buildRuling(item.reveal)));
}

function buildOutcome(item) {
  const { reveal } = item;
  const scores = Object.entries(reveal.scores);
  const missed = new Set(reveal.failures.map(({ name }) => (splitThreshold(name) || {}).score));
  scores.sort((a, b) => missed.has(b[0]) - missed.has(a[0]));
  const more = reveal.failures.slice(1).map(({ name, agreed }) => h("li", {}, h("b", {}, formatName(formatReason(name))), " too. ", buildAgreement(agreed)));
  const made = reveal.generated.map((each) => h("li", {}, h("b", {}, getVariantTitle(each.variant)), each.kept ? " was kept" : ` was rejected: ${formatReason(each.reason || "rejected")}`,
    each.identity === null ? "" : ` (identity ${formatNumber(each.identity)})`, ". ", buildAgreement(each.agreed)));
  return h("div", { class: "outcome" }, buildRuling(reveal), (more.length > 0 || made.length > 0) && h("ul", {}, more, made),
    scores.length > 0 && h("dl", { class: "numbers-list" }, scores.map(([name, value]) => h("div", { class: missed.has(name) ? "fails" : null, title: getScoreMeaning(name) }, h("dt", {}, getScoreTitle(name)), h("dd", {}, formatNumber(value))))));
}

// ---- figures -----------------------------------------------------------------------------------------------------------

async function showFigures() {
  audit.turn += 1; // a subject that is still loading must not replace the figures
  setBusy(true);
  try {
    await audit.sending;
    const found = await requestJson("/api/summary");
    const over = audit.items.every((each) => each.done);
    byId("figures").replaceChildren(...buildFigures(found, over));
    byId("item").hidden = true;
    byId("figures").hidden = false;
    setBusy(false);
    if (audit.player) audit.player.pause();
    document.title = "Figures · Audit";
    scrollTo({ top: 0, behavior: "instant" });
    byId("figures").querySelector("h1").focus({ preventScroll: true });
  } catch (error) {
    showProblem(error, showFigures);
  }
}

function hideFigures() {
  byId("figures").hidden = true;
  byId("item").hidden = false;
}

function buildFigures(found, over) {
  const share = (value) => (value === null ? "" : `${(100 * value).toFixed(1)} %`);
  const reach = (low, high, at, paper) => h("span", { class: "reach", style: { "--low": `${100 * low}%`, "--high": `${100 * high}%` } }, h("i", {}),
    h("b", { style: { "--at": `${100 * at}%` } }), paper && h("b", { class: "paper", style: { "--at": `${100 * paper}%` }, title: `Kaleido A.1: above ${100 * paper} %` }));
  const between = (low, high) => `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)}`;
  const table = (title, lead, rows, named) => rows.length > 0 && [
    h("h2", {}, title), h("p", { class: "note" }, lead),
    h("table", {}, h("thead", {}, h("tr", {}, ["Filter", "Judged", "Agreed", "Accuracy", "95 % CI"].map((each, at) => h("th", { scope: "col", class: at === 4 ? "ci" : null }, each)), h("th", { class: "scale" }, h("span", { class: "muted" }, "0 to 100 %")))),
      h("tbody", {}, rows.map((row) => h("tr", { "data-row": `${row.of}/${row.name}` },
        h("th", { scope: "row" }, named(row), row.unsure > 0 && h("small", {}, `${row.unsure} can't tell`), row.kaleido && h("small", {}, `Kaleido ${Math.round(100 * row.kaleido)} %`)),
        h("td", {}, formatCount(row.judged)), h("td", {}, formatCount(row.agreed)), h("td", { class: "strong" }, share(row.accuracy)), h("td", { class: "muted" }, row.judged ? between(row.low, row.high) : ""),
        h("td", { class: "scale" }, row.judged ? reach(row.low, row.high, row.accuracy, row.kaleido) : "")))))];
  const estimated = found.dataset.filter((each) => each.share !== null);
  const open = findOpenItem(audit.at) >= 0;
  return [
    h("h1", { tabindex: "-1" }, over ? `All ${formatCount(found.drawn)} judged` : "Figures so far"),
    h("p", { class: "lead" }, found.subjects ? `${formatCount(found.subjects)} of ${formatCount(found.drawn)} drawn subjects have answers. ` : "Nothing is judged yet. ", over ? "The terminal prints the same figures at the end." : ""),
    table("Kept subjects", "How often a kept subject should be kept.", found.kept, (row) => formatName(row.title)),
    table("Rejected subjects", "How often you agree with the filter that rejected. A subject that missed several thresholds counts for each.", found.rejected, (row) => formatName(formatReason(row.name))),
    table("Generated pictures", "How often a generated picture still shows the same subject.", found.generated, (row) => (row.of === "generated" ? getVariantTitle(row.name) : formatName(row.title))),
    estimated.length > 0 && [h("h2", {}, "The whole dataset"),
      h("p", { class: "note" }, "Each judged subject is weighted by how many subjects of the dataset it stands for."),
      h("table", {}, h("thead", {}, h("tr", {}, ["Share of subjects", "Judged", "Share", "95 % CI"].map((each) => h("th", { scope: "col" }, each)), h("th", { class: "scale" }))),
        h("tbody", {}, estimated.map((each) => h("tr", { "data-estimate": each.name }, h("th", { scope: "row" }, formatName(each.name)), h("td", {}, formatCount(each.judged)), h("td", { class: "strong" }, share(each.share)), h("td", { class: "muted" }, between(each.low, each.high)), h("td", { class: "scale" }, reach(each.low, each.high, each.share)))))),
      found.uncovered > 0 && h("p", { class: "note" }, `${formatCount(found.uncovered)} subjects were rejected for reasons that are not judged yet; these shares leave them out.`)],
    found.kappas.map((each) => h("p", { class: "note" }, `${each.judges.join(" and ")} agree on ${formatCount(each.agreed)} of ${formatCount(each.answers)} answers; Cohen's kappa ${each.kappa === null ? "is not defined" : each.kappa.toFixed(2)}.`)),
    h("button", { type: "button", class: "back", onclick: () => (open ? visitItem(findOpenItem(audit.at)) : visitItem(audit.at)) }, open ? "Continue" : "Look at them again"),
  ].flat(2).filter(Boolean);
}

// ---- keys ----------------------------------------------------------------------------------------------------------------

function showKeys() {
  const rows = [["1", "Y", "Yes"], ["2", "N", "No"], ["3", "Space", "Can't tell"], ["↑", "↓", "Another question"], ["←", "→", "Another subject"], ["U", "", "Undo"], ["M", "", "Show or hide the mask"], ["Z", "", "Enlarge cut-out, crop"], ["P", "", "Play or pause the clip"], ["F", "", "Figures"]];
  const box = byId("keys");
  box.replaceChildren(h("h2", { id: "keys-title" }, "Keys"), h("dl", {}, rows.map(([one, two, words]) => [h("dt", {}, h("kbd", {}, one), two && h("kbd", {}, two)), h("dd", {}, words)])),
    h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => box.close() }, "×"));
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.showModal();
}

function enlargeNext() {
  const names = [...document.querySelectorAll("[data-view]")].map((each) => each.dataset.view);
  audit.view = [...names, null][names.indexOf(audit.view) + 1];
  drawView();
}

function togglePlay() {
  if (audit.player) audit.player.paused ? audit.player.play().catch(() => {}) : audit.player.pause();
}

const ACTIONS = {
  ArrowLeft: () => goToNeighbour(-1), ArrowRight: () => goToNeighbour(1), ArrowUp: () => moveQuestion(-1), ArrowDown: () => moveQuestion(1),
  u: undoAnswer, m: toggleMask, z: enlargeNext, p: togglePlay, f: showFigures,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open || !audit.item) return;
  const on = event.target instanceof Element ? event.target.closest("button, a, video, input") : null;
  // A focused button or video keeps its own keys.
  if (on && (event.key === " " || event.key === "Enter" || (on.matches("video") && event.key.startsWith("Arrow")))) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shown = byId("figures").hidden;
  if (key === "?") showKeys();
  else if (!shown && (key === "f" || key === "Escape")) visitItem(audit.at);
  else if (shown && key in KEYS && !event.repeat) giveAnswer(KEYS[key]);
  else if (shown && key in ACTIONS) ACTIONS[key]();
  else if (!shown && key === "u") undoAnswer();
  else return;
  event.preventDefault();
});

// ---- start -----------------------------------------------------------------------------------------------------------------

byId("to-keys").addEventListener("click", showKeys);
byId("to-figures").addEventListener("click", () => (byId("figures").hidden ? showFigures() : visitItem(audit.at)));
byId("skip").addEventListener("click", (event) => { event.preventDefault(); if (byId("ask")) byId("ask").focus(); });

async function start() {
  try {
    const state = await requestJson("/api/state");
    audit.items = state.items;
    audit.pace = state.seconds;
    byId("name").replaceChildren(state.dataset, h("span", { class: "muted" }, ` · ${state.judge}`));
    drawProgress();
    const next = findOpenItem(0);
    await visitItem(next < 0 ? audit.items.length - 1 : next);
    if (next < 0) showFigures();
  } catch (error) {
    showProblem(error, start);
  }
}

start();
