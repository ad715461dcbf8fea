// Charts: a histogram (SVG) and a list of bars (HTML).

/** About `wanted` round numbers from `low` to `high`. */
function computeTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** Round values of a logarithmic axis between 2^low and 2^high. */
function computeLogTicks(low, high, wide) {
  const found = [];
  for (let power = -1; power <= 7; power++) {
    for (const factor of wide ? [1, 3] : [1]) {
      const value = factor * 10 ** power;
      if (Math.log2(value) >= low && Math.log2(value) <= high) found.push(value);
    }
  }
  return found;
}

const LABEL_HEIGHT = 18; // px, a row of labels of thresholds
const formatAxisValue = (value) => (Math.abs(value) >= 1000 ? `${value / 1000}k` : String(value));

/**
 * A stacked histogram.
 * data: {start, width, log, beyond, bins: [[n per series]]}; series: [{name, className}];
 * lines: [{bound, value, applies_to}]; unit: what is counted; centred: bins are whole numbers.
 */
function drawHistogram(width, data, { series, lines = [], unit, axis, centred = false, label }) {
  const left = 34, right = 8, plot = 116, bottom = 38;
  const inner = width - left - right;
  const shift = centred ? -0.5 : 0;
  const low = data.start + shift, high = low + data.bins.length * data.width;
  const place = (value) => left + inner * (value - low) / (high - low);
  const placeValue = (value) => place(data.log ? Math.log2(Math.max(value, 0.1)) : value);
  const placeLimit = (line) => placeValue(line.value + (centred ? (line.bound === "min" ? -0.5 : 0.5) : 0));
  const limits = placeLabels(lines, placeLimit, width);
  const top = 26 + LABEL_HEIGHT * (Math.max(-1, ...limits.map(({ row }) => row)) + 1);
  const height = top + plot + bottom;
  const totals = data.bins.map((bin) => bin.reduce((a, b) => a + b, 0));
  const yTicks = computeTicks(0, Math.max(...totals, 1), 3).filter(Number.isInteger);
  const most = Math.max(...totals, ...yTicks, 1);
  const y = (n) => top + plot * (1 - n / most);
  const bar = inner / data.bins.length;
  const gap = bar > 6 ? 1 : bar > 3 ? 0.5 : 0;
  const toValue = (edge) => (data.log ? 2 ** edge : edge);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "chart" });

  for (const line of lines) {
    const at = placeLimit(line);
    const box = line.bound === "min" ? [left, at - left] : [at, left + inner - at];
    svg.append(s("rect", { x: box[0], y: top, width: Math.max(0, box[1]), height: plot, class: "outside" }));
  }
  for (const n of yTicks) {
    svg.append(s("line", { x1: left, x2: left + inner, y1: y(n), y2: y(n), class: n ? "grid" : "axis" }));
    svg.append(s("text", { x: left - 6, y: y(n) + 4, "text-anchor": "end" }, formatAxisValue(n)));
  }
  data.bins.forEach((bin, index) => {
    let done = 0;
    bin.forEach((n, which) => {
      if (!n) return;
      // One item among thousands still gets a visible pixel.
      const tall = Math.max(1, y(done) - y(done + n));
      svg.append(s("rect", {
        x: left + index * bar + gap / 2, y: y(done) - tall, width: bar - gap, height: tall, class: series[which].className,
      }));
      done += n;
    });
    if (!totals[index]) return;
    const from = low + index * data.width, last = data.beyond && index === data.bins.length - 1;
    const title = centred ? String(from + 0.5)
      : last ? `${formatBrief(toValue(from))} and above`
      : `${formatBrief(toValue(from))} to ${formatBrief(toValue(from + data.width))}`;
    svg.append(s("rect", {
      x: left + index * bar, y: top, width: bar, height: plot, class: "hit",
      tip: [title, series.map((each, which) => [each.name, formatCount(bin[which]), each.className]).filter((_, which) => bin[which])],
    }));
  });
  const xTicks = data.log ? computeLogTicks(low, high, inner > 220) : computeTicks(low, high, Math.max(2, Math.floor(inner / 58)));
  for (const value of xTicks) {
    if (centred && !Number.isInteger(value)) continue;
    const at = data.log ? placeValue(value) : place(value);
    svg.append(s("line", { x1: at, x2: at, y1: top + plot, y2: top + plot + 4, class: "axis" }));
    const text = formatAxisValue(value), half = 3.6 * text.length;
    svg.append(s("text", { x: Math.min(at, width - half), y: top + plot + 17, "text-anchor": "middle" }, text));
  }
  svg.append(s("text", { x: left + inner, y: height - 5, "text-anchor": "end", class: "unit" }, axis));
  svg.append(s("text", { x: 0, y: 11, class: "unit" }, unit));
  for (const { line, at, from, row, text } of limits) {
    const base = top - 11 - LABEL_HEIGHT * row;
    svg.append(s("line", { x1: at, x2: at, y1: base + 5, y2: top + plot, class: "limit" }));
    svg.append(s("text", { x: from, y: base, class: "limit-label", tip: [line.name, [[line.source || "no source given", ""]]] }, text));
  }
  return svg;
}

/** Where the labels of the thresholds stand: inside the chart, and in a row above where they would overlap. */
function placeLabels(lines, place, width) {
  const ends = []; // of each row
  return [...lines].sort((a, b) => place(a) - place(b)).map((line) => {
    const at = place(line);
    const text = `${line.bound} ${formatBrief(line.value)}${line.applies_to === "all" ? "" : ` · ${line.applies_to}`}`;
    const long = 7.6 * text.length; // of the bold 12 px letters
    // The label stands on the side that is kept, if there is room.
    const from = Math.max(0, Math.min(line.bound === "min" ? at : at - long, width - long));
    let row = ends.findIndex((end) => end + 8 < from);
    if (row < 0) row = ends.length;
    ends[row] = from + long;
    return { line, at, from, row, text };
  });
}

/**
 * Bars with a name and a number. rows: [{name, value, part?, note, onclick?, title?}]; `part` is drawn over `value`.
 * `most`: what a full bar stands for.
 */
function drawBars(rows, most) {
  const share = (value) => `${most ? Math.max(value ? 0.6 : 0, 100 * value / most) : 0}%`;
  return h("ul", { class: "bars" }, rows.map((row) => {
    const inside = [
      h("span", { class: "name" }, row.name),
      h("span", { class: "track", "aria-hidden": "true" },
        h("span", { class: row.part === undefined ? "whole solid" : "whole", style: { width: share(row.value) } }),
        row.part === undefined ? null : h("span", { class: "part", style: { width: share(row.part) } })),
      h("span", { class: "value" }, row.note),
    ];
    return h("li", {}, row.onclick
      ? h("button", { type: "button", class: "row", title: row.title, onclick: row.onclick }, inside)
      : h("div", { class: "row", title: row.title }, inside));
  }));
}
