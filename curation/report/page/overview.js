// The upper half: what was made of what, where it was lost and why.

const overview = JSON.parse(byId("overview").textContent);

const SUBJECT_SERIES = [
  { name: "kept", className: "kept" },
  { name: "rejected for another reason", className: "rest" },
  { name: "rejected, misses this threshold", className: "lost" },
];
const CLIP_SERIES = [{ name: "kept", className: "kept" }, { name: "not kept", className: "rest" }];

const legend = (series) => h("ul", { class: "legend" }, series.map((each) => h("li", { class: each.className }, each.name)));
const has = (mapping) => Boolean(mapping && Object.keys(mapping).length);
const sum = (mapping) => Object.values(mapping || {}).reduce((a, b) => a + Number(b || 0), 0);

function drawTop() {
  const { videos, clips, subjects } = overview;
  const steps = [videos && [videos.in, "video"], clips && [clips.in, "clip"]].filter(Boolean);
  const kept = has(subjects) ? [subjects.kept, "subject"] : null;
  const words = steps.map(([n, unit]) => [h("b", {}, count(n)), ` ${some(n, unit).replace(/^\S+ /, "")}`]);
  if (kept) words.push([h("b", { class: "goal" }, count(kept[0])), ` kept ${some(kept[0], "subject").replace(/^\S+ /, "")}`]);
  const when = overview.created_at ? new Date(overview.created_at) : null;
  const facts = [
    [duration(overview.kept_seconds || 0), "of video kept"],
    [count(sum(overview.references)), "references made"],
    [count(Object.values(overview.categories || {}).filter((c) => c.kept).length), "categories with a kept subject"],
    has(overview.seconds) && [duration(sum(overview.seconds)), "of work, all stages together"],
    overview.shards.length > 0 && [bytes(overview.shards.reduce((a, b) => a + (b.bytes || 0), 0)), `in ${overview.shards.length === 1 ? "one shard" : `${overview.shards.length} shards`}`],
  ].filter(Boolean);
  fill(byId("top"), {}, [
    h("p", { class: "eyebrow" }, "Dataset report",
      when && !isNaN(when) && h("time", { datetime: overview.created_at }, when.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" }))),
    h("h1", {}, overview.name),
    h("p", { class: "verdict" }, words.map((part, n) => [n ? h("span", { class: "arrow", role: "img", "aria-label": "became" }, " → ") : null, h("span", { class: "step" }, part)])),
    overview.problem && h("p", { class: "notice" }, overview.problem),
    h("ul", { class: "accounts" }, accounts()),
    h("dl", { class: "facts" }, facts.map(([value, name]) => h("div", {}, h("dd", {}, value), h("dt", {}, name)))),
  ]);
}

/** Does everything that went in come out again? One line per unit, red where it does not. */
function accounts() {
  const found = [];
  for (const unit of ["video", "clip"]) {
    const n = overview[`${unit}s`];
    if (!n || n.in === undefined) continue;
    const parts = ["kept", "rejected", "failed", "open"].filter((part) => part !== "open" || n[part]);
    const out = parts.reduce((total, part) => total + (n[part] || 0), 0);
    const text = `${some(n.in, unit)} in = ${parts.map((part) => `${count(n[part])} ${part === "open" ? "unfinished" : part}`).join(" + ")}`;
    found.push(account(out === n.in, out === n.in ? text : text.replace(" = ", " ≠ "), out === n.in ? "" : `: ${count(Math.abs(n.in - out))} ${n.in > out ? "unaccounted for" : "too many"}`));
  }
  const rows = overview.rows.clips;
  if (overview.clips && overview.clips.in !== rows)
    found.push(account(false, `The manifest speaks of ${some(overview.clips.in, "clip")}, the shards hold ${count(rows)}`, ""));
  for (const stage of overview.funnel) {
    const named = sum(stage.reasons);
    if (stage.in - stage.out !== named)
      found.push(account(false, `${plain(stage.stage)}: ${count(stage.in)} in, ${count(stage.out)} out, but reasons for ${count(named)}`, ""));
  }
  return found;
}

const account = (good, text, more) => h("li", { class: good ? "good" : "bad" },
  h("span", { class: "mark", role: "img", "aria-label": good ? "adds up" : "does not add up" }, good ? "✓" : "!"), text, more);

// ---- the funnel: one strip per stage, a river that narrows and what it loses -------------------------------

function drawFunnel() {
  const stages = overview.funnel;
  if (!stages.length) {
    section("funnel", "Funnel", "The manifest has no funnel, so the way through the stages is not known.");
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
      h("span", {}, plain(UNIT_WORDS[group.unit] ? UNIT_WORDS[group.unit][1] : group.unit))));
    group.stages.forEach((stage, index) => {
      columns.push("minmax(0, 1fr)");
      list.append(funnelStage(stage, whole, column, index === group.stages.length - 1));
      column += 1;
    });
  });
  list.style.setProperty("--columns", columns.join(" "));
  const fade = (id, to) => s("linearGradient", { id, x1: 0, y1: 0, ...to }, s("stop", { offset: "35%", class: "strong" }), s("stop", { offset: "100%", class: "gone" }));
  const fades = s("svg", { width: 0, height: 0, class: "fades", "aria-hidden": "true" }, fade("fade-across", { x2: 0, y2: 1 }), fade("fade-upright", { x2: 1, y2: 0 }));
  section("funnel", "Funnel", "What went into each stage and what came out. Height is the share of the videos, clips or subjects that the block began with; a reason leads to its clips.", fades, list);
}

function funnelStage(stage, whole, column, last) {
  const lost = stage.in - stage.out;
  const reasons = Object.entries(stage.reasons || {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1]);
  const shown = reasons.length === 5 ? 5 : 4; // "1 other reason" would take the same line
  const tip = [
    `${plain(stage.stage)}: ${count(stage.in)} in, ${count(stage.out)} out`,
    reasons.length ? reasons.map(([reason, n]) => [reasonText(reason), count(n), "lost"]) : [["nothing lost", ""]],
  ];
  return h("li", { class: last ? "stage last" : "stage", style: { "--column": String(column) }, "data-stage": stage.stage },
    h("div", { class: "head" },
      h("span", { class: "stage-name" }, plain(stage.stage)),
      h("span", { class: "numbers" }, h("b", { "data-out": stage.out }, count(stage.out)), lost ? h("span", { "data-in": stage.in }, ` of ${count(stage.in)}`) : null)),
    strip(stage.in / whole, stage.out / whole, true, tip, `${tip[0]}. ${lost ? `${count(lost)} lost` : "Nothing lost"}.`),
    strip(stage.in / whole, stage.out / whole, false, tip, null),
    h("div", { class: "losses" }, lost > 0 && h("span", { class: "minus" }, `−${count(lost)}`),
      h("ul", {}, reasons.slice(0, shown).map(([reason, n]) => h("li", {},
        h("button", { type: "button", title: `Show the clips: ${reason}`, onclick: () => showOnly({ reason }) },
          reasonText(reason), reasons.length > 1 || n !== lost ? h("span", {}, ` ${count(n)}`) : null))),
        reasons.length > shown && h("li", { class: "muted" }, `and ${count(reasons.slice(shown).reduce((a, [, n]) => a + n, 0))} for ${reasons.length - shown} other reasons`))));
}

/** One stage's piece of the river, in a 100 x 100 box that is stretched to its place. */
function strip(before, after, across, tip, label) {
  const a = Math.max(before * 100, before ? 1.5 : 0), b = Math.max(after * 100, after ? 1.5 : 0);
  // Coordinates along the flow and across it; upright the two change places.
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
    return h("div", {}, h("h3", {}, title, h("span", { class: "total" }, count(found.reduce((a, [, n]) => a + n, 0)))),
      bars(found.map(([reason, n]) => ({
        name: reasonText(reason), value: n, note: count(n), title: reason, onclick: () => showOnly({ reason }),
      })), found[0][1]));
  };
  const blocks = [block("video", "Videos that gave no clip"), block("clip", "Clips that stopped"), block("subject", "Subjects that were rejected")].filter(Boolean);
  section("reasons", "Reasons",
    blocks.length ? "Why something was not kept. Choose one to see the clips." : "Nothing was rejected.",
    h("div", { class: "columns" }, blocks));
}

function drawScores() {
  const charts = overview.scores;
  if (!charts.length) {
    section("scores", "Scores", "No subject was measured.");
    return;
  }
  const missing = overview.unmeasured.map((score) => scoreTitle(score).toLowerCase());
  section("scores", "Scores",
    "Everything that was measured of a subject, against the thresholds that decided. What lies in the tinted part was rejected.",
    legend(SUBJECT_SERIES),
    h("div", { class: "plots" }, charts.map((chart) => {
      const [kept, rest, lost] = [0, 1, 2].map((which) => chart.bins.reduce((a, bin) => a + bin[which], 0));
      const label = `${scoreTitle(chart.score)} of ${some(chart.count, "subject")}: ${kept} kept, ${lost} rejected by it, ${rest} for another reason`;
      return h("figure", { "data-score": chart.score },
        h("figcaption", {}, h("h3", {}, scoreTitle(chart.score)), h("p", {}, scoreMeaning(chart.score))),
        responsive(h("div", { class: "canvas" }), (width) => histogram(width, chart, {
          series: SUBJECT_SERIES, lines: chart.lines, unit: "subjects", axis: `${scoreTitle(chart.score).toLowerCase()}${chart.log ? ", logarithmic" : ""}`, centred: chart.score === "face_count", label,
        })));
    })),
    missing.length > 0 && h("p", { class: "aside" }, `Not measured in this run: ${missing.join(", ")}.`));
}

function drawCategories() {
  const groups = new Map();
  for (const [name, found] of Object.entries(overview.categories || {})) {
    const group = found.group || "other";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ name, ...found });
  }
  if (!groups.size) {
    section("categories", "Categories", "No subject was found.");
    return;
  }
  const most = Math.max(...[...groups.values()].flat().map((c) => c.found || 0), 1);
  const total = (list, what) => list.reduce((a, c) => a + (c[what] || 0), 0);
  const blocks = [...groups].sort((a, b) => total(b[1], "found") - total(a[1], "found")).map(([group, list]) => {
    list.sort((a, b) => b.found - a.found || a.name.localeCompare(b.name));
    const row = (c) => ({
      name: plain(c.name), value: c.found || 0, part: c.kept || 0, note: `${count(c.kept)} / ${count(c.found)}`,
      title: `${c.name}: ${count(c.kept)} kept of ${count(c.found)} found`, onclick: () => showOnly({ category: c.name }),
    });
    return h("div", { class: "group" },
      h("h3", {}, plain(group), h("span", { class: "total" }, `${count(total(list, "kept"))} / ${count(total(list, "found"))}`)),
      bars(list.slice(0, 8).map(row), most),
      list.length > 8 && h("details", {}, h("summary", {}, `${count(list.length - 8)} more`), bars(list.slice(8).map(row), most)));
  });
  section("categories", "Categories", "Subjects kept and found, by taxonomy group. All bars share one scale.",
    legend([{ name: "kept", className: "kept" }, { name: "found", className: "rest" }]), h("div", { class: "groups" }, blocks));
}

function drawClips() {
  const plot = (data, title, meaning, axis) => data && h("figure", {},
    h("figcaption", {}, h("h3", {}, title), h("p", {}, meaning)),
    responsive(h("div", { class: "canvas" }), (width) => histogram(width, data, {
      series: CLIP_SERIES, unit: "clips", axis, label: `${title} of ${some(data.count, "clip")}`,
    })));
  const plots = [
    plot(overview.lengths, "Length", "from first to last frame", "seconds"),
    plot(overview.motion, "Motion", "of the subjects, camera taken out", "diagonals per second"),
    plot(overview.camera_motion, "Camera motion", "mean over the clip", "diagonals per second"),
  ].filter(Boolean);
  const variants = Object.entries(overview.references || {});
  variants.sort((a, b) => variantRank(a[0]) - variantRank(b[0]));
  section("clips", "Clips and references", null, plots.length > 0 && legend(CLIP_SERIES),
    h("div", { class: "plots" }, plots,
      variants.length > 0 && h("figure", {},
        h("figcaption", {}, h("h3", {}, "References"), h("p", {}, "pictures made of kept subjects, by variant")),
        bars(variants.map(([name, n]) => ({ name: variantTitle(name), value: n, note: count(n) })), Math.max(...variants.map(([, n]) => n))))));
}

function drawRun() {
  const seconds = Object.entries(overview.seconds || {});
  const licenses = Object.entries(overview.licenses || {}).sort((a, b) => b[1].in - a[1].in);
  const blocks = [
    seconds.length && h("div", {}, h("h3", {}, "Time", h("span", { class: "total" }, duration(sum(overview.seconds)))),
      bars(seconds.map(([stage, t]) => ({ name: plain(stage), value: t, note: duration(t) })), Math.max(...seconds.map(([, t]) => t)))),
    licenses.length && h("div", {}, h("h3", {}, "Licences", h("span", { class: "total" }, "kept / clips")),
      bars(licenses.slice(0, 12).map(([name, n]) => ({
        name: name || "not stated", value: n.in, part: n.kept || 0, note: `${count(n.kept)} / ${count(n.in)}`,
      })), licenses[0][1].in),
      licenses.length > 12 && h("p", { class: "aside" }, `and ${count(licenses.length - 12)} more`)),
  ].filter(Boolean);
  const versions = Object.entries({ reprise: overview.reprise_version, ...overview.versions }).filter(([, v]) => v);
  section("run", "Run", null, h("div", { class: "columns" }, blocks),
    has(overview.config) && h("details", { class: "fold" },
      h("summary", {}, "Config", overview.config_hash && h("code", {}, overview.config_hash)),
      h("pre", { tabindex: 0 }, outline(overview.config))),
    versions.length > 0 && h("details", { class: "fold" }, h("summary", {}, "Versions"),
      h("dl", { class: "versions" }, versions.map(([name, version]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(version)))))));
}

/** Nested values as an indented outline, as one would write them in YAML. */
function outline(value, indent = "") {
  return Object.entries(value).map(([key, inner]) => {
    if (inner && typeof inner === "object" && !Array.isArray(inner) && Object.keys(inner).length) return `${indent}${key}:\n${outline(inner, `${indent}  `)}`;
    return `${indent}${key}: ${typeof inner === "string" ? inner : JSON.stringify(inner)}`;
  }).join("\n");
}
