// The upper half of the page: the numbers of the run, and charts of where and why rows were lost.

const overview = JSON.parse(byId("overview").textContent);

const SUBJECT_SERIES = [
  { name: "kept", className: "kept" },
  { name: "rejected for another reason", className: "rest" },
  { name: "rejected, misses this threshold", className: "lost" },
];
const CLIP_SERIES = [{ name: "kept", className: "kept" }, { name: "not kept", className: "rest" }];

const buildLegend = (series) => h("ul", { class: "legend" }, series.map((each) => h("li", { class: each.className }, each.name)));
const hasEntries = (mapping) => Boolean(mapping && Object.keys(mapping).length);
const sumValues = (mapping) => Object.values(mapping || {}).reduce((a, b) => a + Number(b || 0), 0);

function drawTop() {
  const { videos, clips, subjects } = overview;
  const steps = [videos && [videos.in, "video"], clips && [clips.in, "clip"]].filter(Boolean);
  const kept = hasEntries(subjects) ? [subjects.kept, "subject"] : null;
  const words = steps.map(([n, unit]) => [h("b", {}, formatCount(n)), ` ${formatAmount(n, unit).replace(/^\S+ /, "")}`]);
  if (kept) words.push([h("b", { class: "goal" }, formatCount(kept[0])), ` kept ${formatAmount(kept[0], "subject").replace(/^\S+ /, "")}`]);
  const when = overview.created_at ? new Date(overview.created_at) : null;
  const facts = [
    [formatDuration(overview.kept_seconds || 0), "of video kept"],
    [formatCount(sumValues(overview.references)), "references made"],
    [formatCount(Object.values(overview.categories || {}).filter((c) => c.kept).length), "categories with a kept subject"],
    hasEntries(overview.seconds) && [formatDuration(sumValues(overview.seconds)), "of work, all stages together"],
    overview.shards.length > 0 && [formatBytes(overview.shards.reduce((a, b) => a + (b.bytes || 0), 0)), `in ${overview.shards.length === 1 ? "one shard" : `${overview.shards.length} shards`}`],
  ].filter(Boolean);
  fillNode(byId("top"), {}, [
    h("p", { class: "eyebrow" }, "Dataset report",
      when && !isNaN(when) && h("time", { datetime: overview.created_at }, when.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" }))),
    h("h1", {}, overview.name),
    h("p", { class: "verdict" }, words.map((part, n) => [n ? h("span", { class: "arrow", role: "img", "aria-label": "became" }, " → ") : null, h("span", { class: "step" }, part)])),
    overview.problem && h("p", { class: "notice" }, overview.problem),
    overview.advice && h("p", { class: "notice" }, overview.advice),
    h("ul", { class: "accounts" }, listAccounts()),
    h("dl", { class: "facts" }, facts.map(([value, name]) => h("div", {}, h("dd", {}, value), h("dt", {}, name)))),
  ]);
}

/** Check that as many videos and clips come out as went in: one line per unit, red where they do not. */
function listAccounts() {
  const found = [];
  for (const unit of ["video", "clip"]) {
    const n = overview[`${unit}s`];
    if (!n || n.in === undefined) continue;
    const parts = ["kept", "rejected", "failed", "open"].filter((part) => part !== "open" || n[part]);
    const out = parts.reduce((total, part) => total + (n[part] || 0), 0);
    const text = `${formatAmount(n.in, unit)} in = ${parts.map((part) => `${formatCount(n[part])} ${part === "open" ? "unfinished" : part}`).join(" + ")}`;
    found.push(buildAccount(out === n.in, out === n.in ? text : text.replace(" = ", " ≠ "), out === n.in ? "" : `: ${formatCount(Math.abs(n.in - out))} ${n.in > out ? "unaccounted for" : "too many"}`));
  }
  const rows = overview.rows.clips;
  if (overview.clips && overview.clips.in !== rows)
    found.push(buildAccount(false, `The manifest counts ${formatAmount(overview.clips.in, "clip")}, the shards hold ${formatCount(rows)}`, ""));
  for (const stage of overview.funnel) {
    const named = sumValues(stage.reasons);
    if (stage.in - stage.out !== named)
      found.push(buildAccount(false, `${formatName(stage.stage)}: ${formatCount(stage.in)} in, ${formatCount(stage.out)} out, but reasons for ${formatCount(named)}`, ""));
  }
  return found;
}

const buildAccount = (good, text, more) => h("li", { class: good ? "good" : "bad" },
  h("span", { class: "mark", role: "img", "aria-label": good ? "adds up" : "does not add up" }, good ? "✓" : "!"), text, more);

// ---- the funnel: one strip per stage, its width is what is left -------------------------------

function drawFunnel() {
  const stages = overview.funnel;
  if (!stages.length) {
    fillSection("funnel", "Funnel", "The manifest has no funnel.");
    return;
  }
  const groups = [];
  for (const stage of stages) {
    if (!groups.length || groups.at(-1).unit !== stage.unit) groups.push({ unit: stage.unit, stages: [] });
    groups.at(-1).stages.push(stage);
  }
  const list = h("ol", { class: stages.length > 14 ? "river tall" : "river" });
  const columns = [];
  let column = 1;
  groups.forEach((group, which) => {
    if (which) { columns.push("20px"); column += 1; }
    const whole = Math.max(...group.stages.map((stage) => Math.max(stage.in, stage.out)), 1);
    list.append(h("li", { class: "unit-name", style: { "--column": `${column} / span ${group.stages.length}` } },
      h("span", {}, formatName(UNIT_NAMES[group.unit] ? UNIT_NAMES[group.unit][1] : group.unit))));
    group.stages.forEach((stage, index) => {
      columns.push("minmax(0, 1fr)");
      list.append(drawFunnelStage(stage, whole, column, index === group.stages.length - 1));
      column += 1;
    });
  });
  list.style.setProperty("--columns", columns.join(" "));
  const fade = (id, to) => s("linearGradient", { id, x1: 0, y1: 0, ...to }, s("stop", { offset: "35%", class: "strong" }), s("stop", { offset: "100%", class: "gone" }));
  const fades = s("svg", { width: 0, height: 0, class: "fades", "aria-hidden": "true" }, fade("fade-across", { x2: 0, y2: 1 }), fade("fade-upright", { x2: 1, y2: 0 }));
  fillSection("funnel", "Funnel", "What went into each stage and what came out. The height shows the share of the videos, clips or subjects at the start of the block. Choose a reason to see its clips.", fades, list);
}

function drawFunnelStage(stage, whole, column, last) {
  const lost = stage.in - stage.out;
  const reasons = Object.entries(stage.reasons || {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1]);
  const shown = reasons.length === 5 ? 5 : 4; // "1 other reason" would take the same space
  const tip = [
    `${formatName(stage.stage)}: ${formatCount(stage.in)} in, ${formatCount(stage.out)} out`,
    reasons.length ? reasons.map(([reason, n]) => [formatReason(reason), formatCount(n), "lost"]) : [["nothing lost", ""]],
  ];
  return h("li", { class: last ? "stage last" : "stage", style: { "--column": String(column) }, "data-stage": stage.stage },
    h("div", { class: "head" },
      h("span", { class: "stage-name" }, formatName(stage.stage)),
      h("span", { class: "numbers" }, h("b", { "data-out": stage.out }, formatCount(stage.out)), lost ? h("span", { "data-in": stage.in }, ` of ${formatCount(stage.in)}`) : null)),
    drawStrip(stage.in / whole, stage.out / whole, true, tip, `${tip[0]}. ${lost ? `${formatCount(lost)} lost` : "Nothing lost"}.`),
    drawStrip(stage.in / whole, stage.out / whole, false, tip, null),
    h("div", { class: "losses" }, lost > 0 && h("span", { class: "minus" }, `−${formatCount(lost)}`),
      h("ul", {}, reasons.slice(0, shown).map(([reason, n]) => h("li", {},
        h("button", { type: "button", title: `Show the clips: ${reason}`, onclick: () => showOnly({ reason }) },
          formatReason(reason), reasons.length > 1 || n !== lost ? h("span", {}, ` ${formatCount(n)}`) : null))),
        reasons.length > shown && h("li", { class: "muted" }, `and ${formatCount(reasons.slice(shown).reduce((a, [, n]) => a + n, 0))} for ${reasons.length - shown} other reasons`))));
}

/** The strip of one stage, in a 100 x 100 box that CSS stretches. */
function drawStrip(before, after, across, tip, label) {
  const a = Math.max(before * 100, before ? 1.5 : 0), b = Math.max(after * 100, after ? 1.5 : 0);
  // Coordinates along the flow and across it; an upright strip swaps them.
  const p = (along, off) => (across ? `${along},${off}` : `${off},${along}`);
  const flow = `M${p(0, 0)} L${p(100, 0)} L${p(100, b)} C${p(52, b)} ${p(48, a)} ${p(0, a)} Z`;
  const loss = a - b > 0.01 ? `M${p(0, a)} C${p(48, a)} ${p(52, b)} ${p(100, b)} C${p(74, b)} ${p(66, 100)} ${p(62, 116)} L${p(62 - Math.min(46, (a - b) * 0.7 + 3), 116)} C${p(30, a + 6)} ${p(14, a)} ${p(0, a)} Z` : null;
  return s("svg", {
    class: across ? "strip across" : "strip upright", viewBox: across ? "0 0 100 118" : "0 0 118 100", preserveAspectRatio: "none",
    role: label ? "img" : null, "aria-label": label, "aria-hidden": label ? null : "true", tabindex: label ? 0 : null, tip,
  },
  s("rect", { width: 118, height: 118, class: "hit" }),
  loss && s("path", { d: loss, class: "loss", fill: `url(#fade-${across ? "across" : "upright"})` }),
  s("path", { d: flow, class: "flow" }));
}

// ---- reasons, scores, categories, clips, run ------------------------------------------------------------------

function drawReasons() {
  const block = (unit, title) => {
    const found = Object.entries((overview.reasons || {})[unit] || {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1]);
    if (!found.length) return null;
    return h("div", {}, h("h3", {}, title, h("span", { class: "total" }, formatCount(found.reduce((a, [, n]) => a + n, 0)))),
      drawBars(found.map(([reason, n]) => ({
        name: formatReason(reason), value: n, note: formatCount(n), title: reason, onclick: () => showOnly({ reason }),
      })), found[0][1]));
  };
  const blocks = [block("video", "Videos without a clip"), block("clip", "Clips that stopped"), block("subject", "Subjects that were rejected")].filter(Boolean);
  fillSection("reasons", "Reasons",
    blocks.length ? "Why something was not kept. Choose one to see the clips." : "Nothing was rejected.",
    h("div", { class: "columns" }, blocks));
}

function drawScores() {
  const charts = overview.scores;
  if (!charts.length) {
    fillSection("scores", "Scores", "No subject was measured.");
    return;
  }
  const missing = overview.unmeasured.map((score) => getScoreTitle(score).toLowerCase());
  fillSection("scores", "Scores",
    "All scores of the subjects, with the thresholds that decided. Subjects in the tinted part were rejected.",
    buildLegend(SUBJECT_SERIES),
    h("div", { class: "plots" }, charts.map((chart) => {
      const [kept, rest, lost] = [0, 1, 2].map((which) => chart.bins.reduce((a, bin) => a + bin[which], 0));
      const label = `${getScoreTitle(chart.score)} of ${formatAmount(chart.count, "subject")}: ${kept} kept, ${lost} rejected by it, ${rest} for another reason`;
      return h("figure", { "data-score": chart.score },
        h("figcaption", {}, h("h3", {}, getScoreTitle(chart.score)), h("p", {}, getScoreMeaning(chart.score))),
        redrawOnResize(h("div", { class: "canvas" }), (width) => drawHistogram(width, chart, {
          series: SUBJECT_SERIES, lines: chart.lines, unit: "subjects", axis: `${getScoreTitle(chart.score).toLowerCase()}${chart.log ? ", logarithmic" : ""}`, centred: chart.score === "face_count", label,
        })));
    })),
    missing.length > 0 && h("p", { class: "remark" }, `No subject has these scores: ${missing.join(", ")}.`));
}

function drawCategories() {
  const groups = new Map();
  for (const [name, found] of Object.entries(overview.categories || {})) {
    const group = found.group || "other";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ name, ...found });
  }
  if (!groups.size) {
    fillSection("categories", "Categories", "No subject was found.");
    return;
  }
  const most = Math.max(...[...groups.values()].flat().map((c) => c.found || 0), 1);
  const total = (list, what) => list.reduce((a, c) => a + (c[what] || 0), 0);
  const blocks = [...groups].sort((a, b) => total(b[1], "found") - total(a[1], "found")).map(([group, list]) => {
    list.sort((a, b) => b.found - a.found || a.name.localeCompare(b.name));
    const row = (c) => ({
      name: formatName(c.name), value: c.found || 0, part: c.kept || 0, note: `${formatCount(c.kept)} / ${formatCount(c.found)}`,
      title: `${c.name}: ${formatCount(c.kept)} kept of ${formatCount(c.found)} found`, onclick: () => showOnly({ category: c.name }),
    });
    return h("div", { class: "group" },
      h("h3", {}, formatName(group), h("span", { class: "total" }, `${formatCount(total(list, "kept"))} / ${formatCount(total(list, "found"))}`)),
      drawBars(list.slice(0, 8).map(row), most),
      list.length > 8 && h("details", {}, h("summary", {}, `${formatCount(list.length - 8)} more`), drawBars(list.slice(8).map(row), most)));
  });
  fillSection("categories", "Categories", "Subjects kept and found, by taxonomy group. All bars share one scale.",
    buildLegend([{ name: "kept", className: "kept" }, { name: "found", className: "rest" }]), h("div", { class: "groups" }, blocks));
}

function drawClips() {
  const plot = (data, title, meaning, axis) => data && h("figure", {},
    h("figcaption", {}, h("h3", {}, title), h("p", {}, meaning)),
    redrawOnResize(h("div", { class: "canvas" }), (width) => drawHistogram(width, data, {
      series: CLIP_SERIES, unit: "clips", axis, label: `${title} of ${formatAmount(data.count, "clip")}`,
    })));
  const plots = [
    plot(overview.lengths, "Length", "from first to last frame", "seconds"),
    plot(overview.motion, "Motion", "of the subjects, camera taken out", "diagonals per second"),
    plot(overview.camera_motion, "Camera motion", "mean over the clip", "diagonals per second"),
  ].filter(Boolean);
  const variants = Object.entries(overview.references || {});
  variants.sort((a, b) => getVariantRank(a[0]) - getVariantRank(b[0]));
  fillSection("clips", "Clips and references", null, plots.length > 0 && buildLegend(CLIP_SERIES),
    h("div", { class: "plots" }, plots,
      variants.length > 0 && h("figure", {},
        h("figcaption", {}, h("h3", {}, "References"), h("p", {}, "pictures made of kept subjects, by variant")),
        drawBars(variants.map(([name, n]) => ({ name: getVariantTitle(name), value: n, note: formatCount(n) })), Math.max(...variants.map(([, n]) => n))))));
}

function drawRun() {
  const seconds = Object.entries(overview.seconds || {});
  const licenses = Object.entries(overview.licenses || {}).sort((a, b) => b[1].in - a[1].in);
  const blocks = [
    seconds.length && h("div", {}, h("h3", {}, "Time", h("span", { class: "total" }, formatDuration(sumValues(overview.seconds)))),
      drawBars(seconds.map(([stage, t]) => ({ name: formatName(stage), value: t, note: formatDuration(t) })), Math.max(...seconds.map(([, t]) => t)))),
    licenses.length && h("div", {}, h("h3", {}, "Licences", h("span", { class: "total" }, "kept / clips")),
      drawBars(licenses.slice(0, 12).map(([name, n]) => ({
        name: name || "not stated", value: n.in, part: n.kept || 0, note: `${formatCount(n.kept)} / ${formatCount(n.in)}`,
      })), licenses[0][1].in),
      licenses.length > 12 && h("p", { class: "remark" }, `and ${formatCount(licenses.length - 12)} more`)),
  ].filter(Boolean);
  const versions = Object.entries({ reprise: overview.reprise_version, ...overview.versions }).filter(([, v]) => v);
  fillSection("run", "Run", null, h("div", { class: "columns" }, blocks),
    hasEntries(overview.config) && h("details", { class: "fold" },
      h("summary", {}, "Config", overview.config_hash && h("code", {}, overview.config_hash)),
      h("pre", { tabindex: 0 }, formatOutline(overview.config))),
    versions.length > 0 && h("details", { class: "fold" }, h("summary", {}, "Versions"),
      h("dl", { class: "versions" }, versions.map(([name, version]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(version)))))));
}

/** Nested values as indented lines, like YAML. */
function formatOutline(value, indent = "") {
  return Object.entries(value).map(([key, inner]) => {
    if (inner && typeof inner === "object" && !Array.isArray(inner) && Object.keys(inner).length) return `${indent}${key}:\n${formatOutline(inner, `${indent}  `)}`;
    return `${indent}${key}: ${typeof inner === "string" ? inner : JSON.stringify(inner)}`;
  }).join("\n");
}
