// The audit: one subject, one question at a time. Everything that is known of the verdict comes from the server
// after the answers, so there is nothing here to peek at.

const ANSWERS = [["yes", "Yes", "1"], ["no", "No", "2"], ["unsure", "Can't tell", "3"]];
const SAID = { yes: "Yes", no: "No", unsure: "Can't tell" };
const KEYS = { 1: "yes", y: "yes", 2: "no", n: "no", 3: "unsure", " ": "unsure" };

const audit = {
  items: [], // {id, done}, in the order of the draw
  at: 0, // position in it
  item: null, // what the server shows of it
  active: null, // name of the question that is asked
  view: null, // what is enlarged, if it is not the frame
  mask: true,
  held: new Map(), // id -> promise of an item, for the next one
  history: [], // [id, question] answered since the page was opened
  last: null, // the subject that was judged before, with its verdict
  pace: null, // s, median of a subject
  sending: Promise.resolve(),
  busy: 0, // answers that are on their way
  turn: 0,
};

// ---- talking to the server ---------------------------------------------------------------------------------------

async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error("The audit is not running any more. Start the same command again: every answer so far is kept.");
  }
  const data = await reply.json();
  if (!reply.ok) throw new Error(data.error);
  return data;
}

const itemPath = (id) => `/api/items/${encodeURIComponent(id)}`;
const picturePath = (id, name) => `/pictures/${encodeURIComponent(id)}/${encodeURIComponent(name)}`;
const clipPath = (id) => `/clips/${encodeURIComponent(id)}`;

/** A subject; with `ahead` it is only brought nearer, pictures and all. */
function fetchItem(id, ahead = false) {
  const held = audit.held.get(id);
  if (held) return held;
  const promise = ask(itemPath(id)).then((item) => {
    if (ahead) for (const name of [item.has_frame && "frame", item.has_mask && "mask", item.box && "crop", item.has_mask && "segment"]) if (name) new Image().src = picturePath(id, name);
    return item;
  });
  promise.catch(() => audit.held.delete(id));
  if (ahead) audit.held.set(id, promise);
  return promise;
}

function sayProblem(error, again) {
  byId("problem").replaceChildren(h("p", { class: "notice" }, error.message,
    h("button", { type: "button", class: "link", onclick: () => { byId("problem").replaceChildren(); again(); } }, "Try again")));
}

// ---- the clock: how long a question is looked at -------------------------------------------------------------------

const clockFace = { since: 0, sum: 0 };

function startClock() {
  clockFace.sum = 0;
  clockFace.since = document.hidden ? 0 : performance.now();
}

function readClock() {
  return (clockFace.sum + (clockFace.since ? performance.now() - clockFace.since : 0)) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && clockFace.since) {
    clockFace.sum += performance.now() - clockFace.since;
    clockFace.since = 0;
  } else if (!document.hidden && !clockFace.since) clockFace.since = performance.now();
});

// ---- going from subject to subject ---------------------------------------------------------------------------------

const questions = (item) => [...item.questions, ...(item.generated || []).map((each) => each.question)];
const firstOpen = (item) => (questions(item).find(({ name }) => !item.answers[name]) || {}).name || null;

/** Position of the next subject that is not done, from `from` on and then from the start; -1 when all are. */
function nextOpen(from) {
  const after = audit.items.findIndex((each, at) => at >= from && !each.done);
  return after >= 0 ? after : audit.items.findIndex((each) => !each.done);
}

async function visit(at, question) {
  const turn = ++audit.turn;
  setBusy(true);
  try {
    const item = await fetchItem(audit.items[at].id);
    if (turn !== audit.turn) return;
    audit.held.delete(item.id);
    Object.assign(audit, { at, item, active: question || firstOpen(item), view: null });
    startClock();
    drawItem();
    setBusy(false);
    const next = audit.items[at].done ? at + 1 : nextOpen(at + 1);
    if (next >= 0 && next < audit.items.length && next !== at) fetchItem(audit.items[next].id, true).catch(() => {});
  } catch (error) {
    if (turn !== audit.turn) return;
    setBusy(false);
    sayProblem(error, () => visit(at, question));
  }
}

/** On the way to another view; what is shown still belongs to the one before. */
const setBusy = (busy) => document.querySelector("main").setAttribute("aria-busy", String(busy));

function goOn() {
  const next = nextOpen(audit.at + 1);
  if (next < 0) showFigures();
  else visit(next);
}

function step(by) {
  const at = audit.at + by;
  if (audit.busy || at < 0 || at >= audit.items.length) return;
  visit(at);
}

// ---- answering -----------------------------------------------------------------------------------------------------

/** Answer the question that is asked. The page goes on at once; answers are sent one after the other. */
function answer(value) {
  const { item, active } = audit;
  if (!active || byId("figures").hidden === false) return;
  audit.history.push([item.id, active]);
  const wasDone = audit.items[audit.at].done;
  send(item, active, value, wasDone);
  if (!wasDone) audit.active = firstOpen(item);
  else audit.active = null;
  startClock();
  drawJudge();
  drawView();
}

function send(item, question, value, wasDone = false) {
  const body = { item: item.id, question, answer: value, seconds: Math.round(readClock() * 100) / 100 };
  if (value) item.answers[question] = value;
  else delete item.answers[question];
  audit.busy += 1;
  const sent = audit.sending.then(() => ask("/api/answers", body));
  audit.sending = sent.then(
    (fresh) => { audit.busy -= 1; took(fresh, wasDone); },
    (error) => {
      audit.busy -= 1;
      // What the server does not have must not look as if it were kept.
      if (!audit.busy && audit.item.id === item.id) sayProblem(error, () => visit(audit.at));
    });
  return audit.sending;
}

/** The server has an answer: it may show more now. */
function took(fresh, wasDone) {
  const entry = audit.items.find(({ id }) => id === fresh.id);
  entry.done = Boolean(fresh.reveal);
  audit.pace = fresh.seconds;
  drawStand();
  if (audit.item.id !== fresh.id || audit.busy) return;
  const opened = !audit.item.generated && fresh.generated;
  audit.item = fresh;
  if (fresh.reveal && !wasDone) {
    audit.last = fresh;
    goOn();
    return;
  }
  if (!audit.active && !fresh.reveal) {
    audit.active = firstOpen(fresh);
    startClock();
  }
  if (opened || fresh.reveal || wasDone) {
    drawJudge();
    drawView();
  }
}

/** Take the latest answer back: of this subject, or else of the one before. */
async function undo() {
  if (audit.busy) return;
  let [id, question] = audit.history.pop() || [];
  if (!id) {
    const given = questions(audit.item).filter(({ name }) => audit.item.answers[name]);
    if (given.length) [id, question] = [audit.item.id, given[given.length - 1].name];
    else {
      // Answers of an earlier sitting: those of the nearest judged subject before this one.
      for (let at = audit.at - 1; at >= 0 && !id; at -= 1) if (audit.items[at].done) id = audit.items[at].id;
      if (!id) return;
    }
  }
  if (byId("item").hidden) hideFigures();
  if (audit.item.id !== id) await visit(audit.items.findIndex((each) => each.id === id));
  if (audit.item.id !== id) return;
  question ||= questions(audit.item).at(-1).name;
  if (audit.last && audit.last.id === id) audit.last = null;
  startClock();
  await send(audit.item, question, null);
  audit.active = question;
  drawJudge();
  drawView();
}

function choose(question) {
  audit.active = question;
  audit.view = null;
  startClock();
  drawJudge();
  drawView();
}

function moveQuestion(by) {
  const names = questions(audit.item).map(({ name }) => name);
  const at = audit.active ? names.indexOf(audit.active) + by : by > 0 ? 0 : names.length - 1;
  if (at >= 0 && at < names.length) choose(names[at]);
}

// ---- drawing: the bar ----------------------------------------------------------------------------------------------

function drawStand() {
  const done = audit.items.filter((each) => each.done).length, all = audit.items.length;
  const left = audit.pace && all > done ? (all - done) * audit.pace : 0;
  byId("stand").replaceChildren(h("b", {}, count(done)), ` of ${count(all)} judged`,
    audit.pace ? h("span", { class: "pace muted" }, ` · ${duration(audit.pace)} each${left ? `, about ${duration(left)} to go` : ""}`) : "");
  const bar = byId("progress");
  fill(bar, { "aria-valuemin": 0, "aria-valuemax": all, "aria-valuenow": done, style: { "--done": `${all ? 100 * done / all : 0}%` } }, []);
}

// ---- drawing: what is looked at --------------------------------------------------------------------------------------

function drawItem() {
  hideFigures();
  const { item } = audit;
  const seen = { view: h("div", { class: "view" }), judge: h("div", { class: "judge" }) };
  if (item.width && item.height) seen.view.style.setProperty("--shape", `${item.width} / ${item.height}`);
  audit.film = item.has_clip ? film(item) : null;
  const tiles = [
    item.has_mask && tile("segment", "Cut-out", `The cut-out of ${item.phrase}`),
    item.box && item.has_frame && tile("crop", "Crop", `The crop of ${item.phrase}`),
    audit.film && (item.box && item.has_frame) && filmTile(item),
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

function film(item) {
  const video = h("video", {
    src: clipPath(item.id), loop: true, playsinline: true, controls: true, preload: "auto", "aria-label": item.caption ? `Clip: ${item.caption}` : "The clip",
    onerror: () => video.replaceWith(h("p", { class: "gone" }, item.codec && item.codec !== "h264" ? `The clip is gone, or this browser cannot play it (${item.codec}).` : "The clip is gone, or this browser cannot play it.")),
  });
  video.muted = true; // an attribute set by a script does not mute
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.addEventListener("canplay", () => video.play().catch(() => {}), { once: true });
  return video;
}

function filmTile(item) {
  return h("figure", {}, h("div", { class: "frame film" }, audit.film),
    h("figcaption", {}, "Clip", item.at !== null && h("button", { type: "button", title: "Show this moment of the clip", onclick: () => { audit.film.pause(); audit.film.currentTime = item.at; } }, `found at ${clock(item.at)}`)));
}

function tile(name, title, alt) {
  const image = h("img", { src: picturePath(audit.item.id, name), alt, onerror: () => image.replaceWith(h("span", { class: "gone" }, "Not kept")) });
  return h("figure", {}, h("button", { type: "button", class: `frame ${name === "segment" ? "checkered" : ""}`, "data-view": name, "aria-pressed": "false", "aria-label": `Enlarge: ${alt}`, onclick: () => { audit.view = audit.view === name ? null : name; drawView(); } }, image),
    h("figcaption", {}, title));
}

/** The large picture: the frame, what was chosen to be enlarged, or a generated picture beside the subject. */
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
  else if (made) parts.view.replaceChildren(versus(item, made));
  else if (item.has_frame) parts.view.replaceChildren(frame(item), item.has_mask ? maskToggle() : "");
  else parts.view.replaceChildren(audit.film || h("p", { class: "gone" }, "Neither the frame nor the clip was kept."));
  showMask();
}

function frame(item) {
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

function versus(item, made) {
  const title = variantTitle(made.variant);
  return h("div", { class: "versus" },
    h("figure", {}, h("img", { src: picturePath(item.id, "crop"), alt: `The subject: ${item.phrase}` }), h("figcaption", {}, h("b", {}, "The subject"))),
    h("figure", { class: made.variant === "redux" ? "checkered" : null }, h("img", { src: picturePath(item.id, made.name), alt: `${title} of it` }), h("figcaption", {}, h("b", {}, title))));
}

// ---- drawing: the judgement ------------------------------------------------------------------------------------------

function drawJudge(first = false) {
  const { item, parts, active } = audit;
  const all = questions(item), now = all.find(({ name }) => name === active);
  const kind = [item.category, item.group].filter(Boolean).join(" · ");
  parts.judge.replaceChildren(...[
    h("div", { class: "title" }, h("h1", {}, item.phrase), h("p", { class: "kind" }, kind)),
    h("p", { class: "caption" }, item.caption ? marked(item.caption, item.phrase) : h("span", { class: "muted" }, "No caption")),
    h("ol", { class: "checks", "aria-label": "Questions" }, all.map((question) => h("li", {},
      h("button", { type: "button", "data-question": question.name, "aria-current": question.name === active ? "step" : null, onclick: () => choose(question.name) },
        question.title, item.answers[question.name] && h("span", { class: `said ${item.answers[question.name]}` }, SAID[item.answers[question.name]]))))),
    now && h("div", { class: "ask", id: "ask", tabindex: "-1", role: "group", "aria-labelledby": "ask-title", "aria-describedby": "ask-hint" },
      h("h2", { id: "ask-title" }, now.title), h("p", { class: "hint", id: "ask-hint" }, now.hint),
      h("div", { class: "answers" }, ANSWERS.map(([value, words, key]) => h("button", { type: "button", class: value, "data-answer": value, "aria-pressed": String(item.answers[now.name] === value), "aria-keyshortcuts": key, onclick: () => answer(value) }, words, h("kbd", {}, key))))),
    item.reveal && outcome(item),
    h("div", { class: "steps" },
      h("button", { type: "button", "data-step": "back", disabled: audit.at === 0, onclick: () => step(-1) }, "← Back"),
      h("button", { type: "button", "data-step": "undo", disabled: !canUndo(), onclick: undo }, "Undo", h("kbd", {}, "U")),
      h("button", { type: "button", "data-step": "on", class: "on", disabled: audit.at === audit.items.length - 1, onclick: () => step(1) }, audit.items[audit.at].done ? "On →" : "Skip →")),
    audit.last && audit.last.id !== item.id && lastCard(audit.last, first),
  ].filter(Boolean));
  // The focus follows the question, so that a screen reader says it and the keys go on working.
  if (now && !byId("keys").open) byId("ask").focus({ preventScroll: true });
}

const canUndo = () => audit.history.length > 0 || Object.keys(audit.item.answers).length > 0 || audit.items.slice(0, audit.at).some((each) => each.done);

/** The caption with the words that the subject was found by. */
function marked(caption, phrase) {
  const at = phrase ? caption.toLowerCase().indexOf(phrase.toLowerCase()) : -1;
  if (at < 0) return caption;
  return [caption.slice(0, at), h("mark", {}, caption.slice(at, at + phrase.length)), caption.slice(at + phrase.length)];
}

function agreement(agreed) {
  if (agreed === null) return h("span", { class: "muted" }, "You could not tell");
  return agreed ? h("span", { class: "agreed" }, "You agree") : h("span", { class: "disputed" }, "You disagree");
}

function ruling(reveal) {
  const chip = reveal.kept ? h("span", { class: "chip kept" }, "Kept") : h("span", { class: "chip rejected" }, "Rejected");
  const numbers = !reveal.kept && reveal.value !== null && reveal.threshold !== null
    ? ` ${number(reveal.value)} ${reveal.value < reveal.threshold ? "<" : ">"} ${brief(reveal.threshold)}` : "";
  return h("span", { class: "ruling" }, chip, agreement(reveal.agreed), !reveal.kept && h("span", { class: "why" }, plain(reasonText(reveal.reason || "rejected")), h("span", { class: "muted" }, numbers)));
}

/** What the filters decided about the subject before, while the next one is already there. */
function lastCard(item, fresh) {
  return h("button", { type: "button", class: `last ${fresh ? "fresh" : ""} ${item.box && item.has_frame ? "" : "bare"}`, title: "Look at it again", onclick: () => visit(audit.items.findIndex(({ id }) => id === item.id)) },
    item.box && item.has_frame && h("img", { src: picturePath(item.id, "crop"), alt: "" }),
    h("span", { role: "status" }, h("span", { class: "who" }, `Before: ${item.phrase}`), ruling(item.reveal)));
}

function outcome(item) {
  const { reveal } = item;
  const scores = Object.entries(reveal.scores);
  const missed = new Set(reveal.failures.map(({ name }) => (splitThreshold(name) || {}).score));
  scores.sort((a, b) => missed.has(b[0]) - missed.has(a[0]));
  const more = reveal.failures.slice(1).map(({ name, agreed }) => h("li", {}, h("b", {}, plain(reasonText(name))), " too. ", agreement(agreed)));
  const made = reveal.generated.map((each) => h("li", {}, h("b", {}, variantTitle(each.variant)), each.kept ? " was kept" : ` was rejected: ${reasonText(each.reason || "rejected")}`,
    each.identity === null ? "" : ` (identity ${number(each.identity)})`, ". ", agreement(each.agreed)));
  return h("div", { class: "outcome" }, ruling(reveal), (more.length > 0 || made.length > 0) && h("ul", {}, more, made),
    scores.length > 0 && h("dl", { class: "numbers-list" }, scores.map(([name, value]) => h("div", { class: missed.has(name) ? "fails" : null, title: scoreMeaning(name) }, h("dt", {}, scoreTitle(name)), h("dd", {}, number(value))))));
}

// ---- figures -----------------------------------------------------------------------------------------------------------

async function showFigures() {
  audit.turn += 1; // a subject that is still on its way must not take the figures' place
  setBusy(true);
  try {
    await audit.sending;
    const found = await ask("/api/summary");
    const over = audit.items.every((each) => each.done);
    byId("figures").replaceChildren(...figures(found, over));
    byId("item").hidden = true;
    byId("figures").hidden = false;
    setBusy(false);
    if (audit.film) audit.film.pause();
    document.title = "Figures · Audit";
    scrollTo({ top: 0, behavior: "instant" });
    byId("figures").querySelector("h1").focus({ preventScroll: true });
  } catch (error) {
    sayProblem(error, showFigures);
  }
}

function hideFigures() {
  byId("figures").hidden = true;
  byId("item").hidden = false;
}

function figures(found, over) {
  const share = (value) => (value === null ? "" : `${(100 * value).toFixed(1)} %`);
  const reach = (low, high, at, paper) => h("span", { class: "reach", style: { "--low": `${100 * low}%`, "--high": `${100 * high}%` } }, h("i", {}),
    h("b", { style: { "--at": `${100 * at}%` } }), paper && h("b", { class: "paper", style: { "--at": `${100 * paper}%` }, title: `Kaleido A.1: above ${100 * paper} %` }));
  const between = (low, high) => `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)}`;
  const table = (title, lead, rows, named) => rows.length > 0 && [
    h("h2", {}, title), h("p", { class: "note" }, lead),
    h("table", {}, h("thead", {}, h("tr", {}, ["Filter", "Judged", "Agreed", "Accuracy", "95 % CI"].map((each, at) => h("th", { scope: "col", class: at === 4 ? "ci" : null }, each)), h("th", { class: "scale" }, h("span", { class: "muted" }, "0 to 100 %")))),
      h("tbody", {}, rows.map((row) => h("tr", { "data-row": `${row.of}/${row.name}` },
        h("th", { scope: "row" }, named(row), row.unsure > 0 && h("small", {}, `${row.unsure} can't tell`), row.kaleido && h("small", {}, `Kaleido ${Math.round(100 * row.kaleido)} %`)),
        h("td", {}, count(row.judged)), h("td", {}, count(row.agreed)), h("td", { class: "strong" }, share(row.accuracy)), h("td", { class: "muted" }, row.judged ? between(row.low, row.high) : ""),
        h("td", { class: "scale" }, row.judged ? reach(row.low, row.high, row.accuracy, row.kaleido) : "")))))];
  const estimated = found.dataset.filter((each) => each.share !== null);
  const open = nextOpen(audit.at) >= 0;
  return [
    h("h1", { tabindex: "-1" }, over ? `All ${count(found.drawn)} judged` : "Figures so far"),
    h("p", { class: "lead" }, found.subjects ? `${count(found.subjects)} of ${count(found.drawn)} drawn subjects have answers. ` : "Nothing is judged yet. ", over ? "The terminal prints the same figures at the end." : ""),
    table("Of the kept", "How often what was kept deserves it.", found.kept, (row) => plain(row.title)),
    table("Of the rejected", "How often you agree with a filter that rejected. A subject that missed several counts for each.", found.rejected, (row) => plain(reasonText(row.name))),
    table("Of the generated", "How often a generated picture still shows the same one.", found.generated, (row) => (row.of === "generated" ? variantTitle(row.name) : plain(row.title))),
    estimated.length > 0 && [h("h2", {}, "The whole dataset"),
      h("p", { class: "note" }, "Each judged subject stands for as many of the dataset as its share of the draw says."),
      h("table", {}, h("thead", {}, h("tr", {}, ["Share of subjects", "Judged", "Share", "95 % CI"].map((each) => h("th", { scope: "col" }, each)), h("th", { class: "scale" }))),
        h("tbody", {}, estimated.map((each) => h("tr", { "data-estimate": each.name }, h("th", { scope: "row" }, plain(each.name)), h("td", {}, count(each.judged)), h("td", { class: "strong" }, share(each.share)), h("td", { class: "muted" }, between(each.low, each.high)), h("td", { class: "scale" }, reach(each.low, each.high, each.share)))))),
      found.uncovered > 0 && h("p", { class: "note" }, `${count(found.uncovered)} subjects, rejected for reasons that were not judged yet, are not in these shares.`)],
    found.kappas.map((each) => h("p", { class: "note" }, `${each.judges.join(" and ")} agree on ${count(each.agreed)} of ${count(each.answers)} answers; Cohen's kappa ${each.kappa === null ? "is not defined" : each.kappa.toFixed(2)}.`)),
    h("button", { type: "button", class: "back", onclick: () => (open ? visit(nextOpen(audit.at)) : visit(audit.at)) }, open ? "Go on judging" : "Look at them again"),
  ].flat(2).filter(Boolean);
}

// ---- keys ----------------------------------------------------------------------------------------------------------------

function showKeys() {
  const rows = [["1", "Y", "Yes"], ["2", "N", "No"], ["3", "Space", "Can't tell"], ["↑", "↓", "Another question"], ["←", "→", "Another subject"], ["U", "", "Undo"], ["M", "", "Mask on and off"], ["Z", "", "Enlarge cut-out, crop"], ["P", "", "Play or pause the clip"], ["F", "", "Figures"]];
  const box = byId("keys");
  box.replaceChildren(h("h2", { id: "keys-title" }, "Keys"), h("dl", {}, rows.map(([one, two, words]) => [h("dt", {}, h("kbd", {}, one), two && h("kbd", {}, two)), h("dd", {}, words)])),
    h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => box.close() }, "×"));
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.showModal();
}

function enlarge() {
  const names = [...document.querySelectorAll("[data-view]")].map((each) => each.dataset.view);
  audit.view = [...names, null][names.indexOf(audit.view) + 1];
  drawView();
}

function pausePlay() {
  if (audit.film) audit.film.paused ? audit.film.play().catch(() => {}) : audit.film.pause();
}

const ACTIONS = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => moveQuestion(-1), ArrowDown: () => moveQuestion(1),
  u: undo, m: toggleMask, z: enlarge, p: pausePlay, f: showFigures,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open || !audit.item) return;
  const on = event.target instanceof Element ? event.target.closest("button, a, video, input") : null;
  // A button that has the focus keeps its own keys, a film too.
  if (on && (event.key === " " || event.key === "Enter" || (on.matches("video") && event.key.startsWith("Arrow")))) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shown = byId("figures").hidden;
  if (key === "?") showKeys();
  else if (!shown && (key === "f" || key === "Escape")) visit(audit.at);
  else if (shown && key in KEYS && !event.repeat) answer(KEYS[key]);
  else if (shown && key in ACTIONS) ACTIONS[key]();
  else if (!shown && key === "u") undo();
  else return;
  event.preventDefault();
});

// ---- start -----------------------------------------------------------------------------------------------------------------

byId("to-keys").addEventListener("click", showKeys);
byId("to-figures").addEventListener("click", () => (byId("figures").hidden ? showFigures() : visit(audit.at)));
byId("skip").addEventListener("click", (event) => { event.preventDefault(); if (byId("ask")) byId("ask").focus(); });

async function start() {
  try {
    const state = await ask("/api/state");
    audit.items = state.items;
    audit.pace = state.seconds;
    byId("name").replaceChildren(state.dataset, h("span", { class: "muted" }, ` · ${state.judge}`));
    drawStand();
    const next = nextOpen(0);
    await visit(next < 0 ? audit.items.length - 1 : next);
    if (next < 0) showFigures();
  } catch (error) {
    sayProblem(error, start);
  }
}

start();
