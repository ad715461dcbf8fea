// One clip of the gallery: its player, facts, subjects and pictures.

const SUBJECT_COLORS = 6; // --s0 ... --s5 in style.css, the colours of the boxes in the pictures
const PREVIEW_PX = 288; // long side of the pictures in this page
const getColor = (ordinal) => ({ "--own": `var(--s${ordinal % SUBJECT_COLORS})` });

const getFileAddress = (path) => `../${path.split("/").map(encodeURIComponent).join("/")}`;

function buildClipCard(clip, state) {
  const entry = { reason: (clip.stop || {}).reason };
  const subjects = clip.subjects.map((subject, ordinal) => ({ ...subject, ordinal }));
  const found = subjects.filter((subject) => subject.frame || subject.box);
  const missing = subjects.filter((subject) => !(subject.frame || subject.box));
  const chosen = (subject) => matchesSubject({ ...subject, reason: (subject.verdict || {}).reason }, entry, state);
  // Those that the filter asks for come first, then the kept ones.
  const rank = (subject) => (chosen(subject) ? 0 : 2) + ((subject.verdict || {}).kept ? 0 : 1);
  found.sort((a, b) => rank(a) - rank(b) || a.ordinal - b.ordinal);
  const first = found.slice(0, 3), rest = found.slice(3);
  return h("article", { class: `card ${clip.status}`, "data-clip": clip.clip_id, "data-status": clip.status, "aria-label": `${clip.start_frame === null ? "Video" : "Clip from"} ${clip.source_path}` },
    h("div", { class: "clip" },
      buildPlayer(clip),
      h("div", { class: "status" }, buildChip(clip.status, getStatusTitle(clip.status)), buildSpan(clip)),
      clip.stop && buildStopLine(clip.stop),
      clip.caption
        ? h("p", { class: "caption" }, highlightPhrases(clip.caption, subjects))
        : clip.status === "failed" ? null : h("p", { class: "caption muted" }, "No caption"),
      h("dl", { class: "meta" }, listFacts(clip).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { title: value }, value))))),
    h("div", { class: "subjects" },
      first.map(buildSubject),
      rest.length > 0 && h("details", {}, h("summary", {}, `${formatAmount(rest.length, "subject").replace(" ", " more ")}`), rest.map(buildSubject)),
      missing.length > 0 && h("p", { class: "missing" }, "Named in the caption but not found: ",
        missing.map((subject, n) => [n ? ", " : "", h("q", { style: getColor(subject.ordinal) }, subject.phrase || subject.name || subject.category)]), "."),
      subjects.length === 0 && h("p", { class: "missing" }, clip.status === "failed" ? "Nothing could be read of this video." : "No subject was searched for in this clip.")));
}

const buildChip = (kind, text) => h("span", { class: `chip ${kind}` }, text);

function buildSpan(clip) {
  if (clip.start_s === null || clip.end_s === null) return null;
  return h("span", { class: "span" }, `${formatClock(clip.start_s)} – ${formatClock(clip.end_s)}`, h("span", { class: "muted" }, ` ${formatNumber(clip.end_s - clip.start_s)} s`));
}

function buildStopLine(stop) {
  return h("p", { class: "stop" }, h("b", {}, formatName(stop.stage || "stopped")), " · ", h("span", { title: stop.reason }, formatReason(stop.reason || "no reason given")), buildComparison(stop));
}

/** " 0.012 < 0.031"; null if a number is missing. */
function buildComparison({ value, threshold }) {
  if (value === null || value === undefined || threshold === null || threshold === undefined) return null;
  return h("span", { class: "against" }, ` ${formatNumber(value)} ${value < threshold ? "<" : ">"} ${formatBrief(threshold)}`);
}

function buildPlayer(clip) {
  const box = h("div", { class: "player" });
  if (clip.width && clip.height) box.style.setProperty("aspect-ratio", `${clip.width} / ${Math.min(clip.height, clip.width * 1.25)}`);
  if (!clip.clip_path) {
    box.append(clip.poster ? h("img", { src: clip.poster, alt: "The annotated frame" }) : h("p", { class: "blank" }, "No clip was cut"));
    return box;
  }
  const address = getFileAddress(clip.clip_path);
  const video = h("video", {
    muted: true, loop: true, playsinline: true, preload: "none", src: address, poster: clip.poster,
    "aria-label": clip.caption ? `Clip: ${clip.caption}` : `Clip of ${clip.source_path}`,
    onerror: () => box.append(h("p", { class: "blank over" }, clip.source_codec && clip.cut === "copy" ? `This browser cannot play it (${clip.source_codec}), or the file is missing. ` : "This browser cannot play it, or the file is missing. ", h("a", { href: address }, "Open the file"))),
  });
  video.muted = true; // the attribute alone does not mute an element made by a script
  // The browser's controls would cover the annotated frame, so the first play adds them.
  const play = h("button", { type: "button", class: "play", "aria-label": "Play the clip", onclick: () => { video.play().catch(() => {}); video.focus(); } },
    s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: "M8 5.5v13l11-6.5z" })));
  video.addEventListener("play", () => { video.controls = true; play.remove(); }, { once: true });
  box.append(video, play);
  return box;
}

function listFacts(clip) {
  const frames = clip.start_frame === null ? "" : `frames ${formatCount(clip.start_frame)} to ${formatCount(clip.end_frame - 1)}`;
  return [
    ["Source", clip.source_path],
    ["Span", frames],
    ["Picture", clip.width ? `${clip.width} × ${clip.height}, ${formatNumber(clip.fps || 0)} fps${clip.source_codec ? `, ${clip.source_codec}` : ""}` : ""],
    ["Motion", clip.motion === null ? "" : `${formatNumber(clip.motion)} subject, ${formatNumber(clip.camera_motion || 0)} camera`],
    ["Caption from", clip.caption ? clip.caption_source : ""],
    ["Licence", clip.license],
    ["Clip", clip.clip_id],
  ].filter(([, value]) => value);
}

/** The caption with every subject's phrase marked in the colour of its box. */
function highlightPhrases(caption, subjects) {
  const lower = caption.toLowerCase(), marks = [];
  const phrases = subjects.flatMap((subject) => [subject.phrase, subject.name].filter(Boolean).map((text) => ({ text: text.toLowerCase(), subject })));
  phrases.sort((a, b) => b.text.length - a.text.length);
  const letter = /[\p{L}\p{N}]/u;
  for (const { text, subject } of phrases) {
    for (let at = lower.indexOf(text); at >= 0; at = lower.indexOf(text, at + 1)) {
      const end = at + text.length;
      // A Latin word ends where its letters end. A script without spaces has no such ends.
      const inWord = /^[\x00-\u024f]+$/.test(text) && (letter.test(caption[at - 1] || "") || letter.test(caption[end] || ""));
      if (!inWord && !marks.some((mark) => at < mark.end && end > mark.at)) marks.push({ at, end, subject });
    }
  }
  marks.sort((a, b) => a.at - b.at);
  const out = [];
  let done = 0;
  for (const { at, end, subject } of marks) {
    out.push(caption.slice(done, at), h("mark", { style: getColor(subject.ordinal), title: `${subject.category}, subject ${subject.ordinal + 1}` }, caption.slice(at, end)));
    done = end;
  }
  return [...out, caption.slice(done)];
}

function buildSubject(subject) {
  const verdict = subject.verdict;
  const kept = verdict && verdict.kept;
  return h("div", { class: subject.references.length ? "subject" : "subject bare", style: getColor(subject.ordinal), "data-subject": subject.subject_id },
    h("header", {},
      h("span", { class: "badge", "aria-label": `Subject ${subject.ordinal + 1}` }, String(subject.ordinal + 1)),
      h("h4", {}, subject.phrase || subject.name || subject.category),
      h("span", { class: "kind" }, [subject.category, subject.group].filter(Boolean).join(" · ")),
      verdict ? h("span", { class: "judged" }, kept ? buildChip("kept", "Kept") : [buildChip("rejected", formatReason(verdict.reason || "rejected")), buildComparison(verdict)]) : buildChip("open", "Undecided")),
    h("div", { class: "tiles" },
      subject.frame ? buildTile("Frame", subject.frame, "wide", subject.time_s === null ? `frame ${formatCount(subject.frame_index)}` : `at ${formatClock(subject.time_s)}`, { subject }) : h("p", { class: "blank wide" }, "The frame is not stored"),
      [...subject.references].sort((a, b) => getVariantRank(a.variant) - getVariantRank(b.variant)).map((reference) => buildTile(getVariantTitle(reference.variant) + (reference.kept === false ? " (rejected)" : ""), reference.image, reference.variant, describeMaker(reference), { subject, reference }))),
    buildScoreList(subject),
    hasEntries(subject.made_by) && h("p", { class: "made" }, Object.entries(subject.made_by).map(([role, who]) => `${role} ${who}`).join("  ·  ")));
}

const describeMaker = (r) => [r.model && `${r.model}${r.revision ? `@${r.revision}` : ""}`, r.seed !== null && r.seed !== undefined ? `seed ${r.seed}` : null].filter(Boolean).join(", ");

/** A picture that can be enlarged. */
function buildTile(title, image, kind, note, { subject, reference = {} }) {
  const alt = `${title} of ${subject.phrase || subject.category}`;
  return h("figure", { class: `tile ${kind}` },
    image
      ? h("button", { type: "button", "aria-label": `Enlarge: ${alt}`, onclick: (event) => openLightbox(event.currentTarget), "data-kind": kind, "data-lines": JSON.stringify(listPictureFacts(title, subject, reference, note)) },
        h("img", { src: image, alt, decoding: "async" }))
      : h("p", { class: "blank" }, "Picture not stored"),
    h("figcaption", {}, h("b", {}, title), note && h("span", { title: note }, note)));
}

/** The facts under an enlarged picture: [[name, value], ...]. */
function listPictureFacts(title, subject, reference, note) {
  return [
    [title, `${subject.phrase || subject.name || ""} (${subject.category})`],
    ["Made by", reference.model ? describeMaker(reference) : note],
    ["Prompt", reference.prompt],
    ["Identity", reference.identity === null ? "" : formatNumber(reference.identity)],
    ["Rejected by", reference.kept === false ? formatReason(reference.reason || "rejected") : ""],
    [reference.variant === "retrieved" ? "Picture from" : "Background from", reference.donor_clip_id],
    ["In the dataset", reference.width ? `${reference.width} × ${reference.height} px${Math.max(reference.width, reference.height) > PREVIEW_PX ? "; this is a preview" : ""}` : ""],
  ].filter(([, value]) => value);
}

/** Scores with their numbers. Those that miss a threshold come first, with the threshold. */
function buildScoreList(subject) {
  const missed = new Map();
  const verdict = subject.verdict || {};
  for (const name of verdict.failures || []) {
    const limit = splitThreshold(name);
    const known = overview.thresholds.find((line) => line.name === name);
    const value = known ? known.value : verdict.reason === name ? verdict.threshold : null;
    if (known) missed.set(known.score, `${known.bound} ${formatBrief(value)}`);
    else if (limit) missed.set(limit.score, value === null ? limit.bound : `${limit.bound} ${formatBrief(value)}`);
  }
  const entries = Object.entries(subject.scores).sort((a, b) => missed.has(b[0]) - missed.has(a[0]));
  if (!entries.length) return null;
  return h("dl", { class: "numbers-list" }, entries.map(([score, value]) => h("div", { class: missed.has(score) ? "fails" : null, title: getScoreMeaning(score) },
    h("dt", {}, getScoreTitle(score)), h("dd", {}, formatNumber(value), missed.has(score) && h("span", {}, missed.get(score))))));
}
