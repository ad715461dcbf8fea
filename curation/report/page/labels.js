// Texts for numbers, scores and reasons.

const SCORE_LABELS = {
  area_share: ["Area", "mask pixels / frame pixels", "too small", "too large"],
  sharpness: ["Sharpness", "variance of the Laplacian", "blurred", "noisy"],
  brightness: ["Brightness", "mean luma of the subject, 0 to 255", "too dark", "too bright"],
  overlap_iou: ["Overlap", "highest mask IoU with a larger subject", "no overlap", "overlaps a larger subject"],
  overlap_containment: ["Containment", "share inside a larger subject", "not part of a larger subject", "part of a larger subject"],
  border_share: ["Border", "share of the frame's border covered", "off the border", "lies along the border"],
  clipped_share: ["Clipped", "share of pixels at the ends of the luma range", "nothing clipped", "over- or underexposed"],
  grounding: ["Detection", "confidence of the detector, 0 to 1", "weak detection", "detection too strong"],
  label: ["Label", "confidence that the phrase names it", "may be another phrase", "label too sure"],
  segment: ["Mask quality", "estimate of the segmenter, 0 to 1", "poor mask", "mask too sure"],
  clip_category: ["Category", "probability of its category", "not its category", "category too sure"],
  clip_margin: ["Category margin", "probability of its category minus that of the best other", "close to another category", "margin too large"],
  visible_share: ["Visible", "share of the sampled frames that show it", "seldom seen", "seen too often"],
  flow_foreground: ["Subject flow", "mean optical flow on the subject, px of a 720 px frame", "moves too little", "moves too much"],
  flow_background: ["Background flow", "mean optical flow beside the subjects, px of a 720 px frame", "camera moves too little", "camera moves too much"],
  face_count: ["Faces", "faces inside the subject", "no face", "several faces"],
  face_share: ["Face size", "largest face / subject's box", "face too small", "face too large"],
  face_score: ["Face score", "face detector's confidence, 0 to 1", "unsure face", "face too sure"],
  face_frontality: ["Frontality", "1 looks at the camera, 0 is profile", "face turned away", "face too frontal"],
};
const STATUS_TITLES = { kept: "Kept", rejected: "Rejected", failed: "Failed", open: "Unfinished" };
const VARIANT_TITLES = { crop: "Crop", segment: "Segment", inpaint: "Inpaint", redux: "Redux", crosspair: "Cross-pair", retrieved: "Retrieved" };
const UNIT_NAMES = { video: ["video", "videos"], clip: ["clip", "clips"], subject: ["subject", "subjects"] };

const VARIANT_ORDER = Object.keys(VARIANT_TITLES);
const getVariantRank = (variant) => VARIANT_ORDER.indexOf(variant) + 1 || 99;
const getScoreTitle = (score) => (SCORE_LABELS[score] || [formatName(score)])[0];
const getScoreMeaning = (score) => (SCORE_LABELS[score] || ["", ""])[1];
const getVariantTitle = (variant) => VARIANT_TITLES[variant] || formatName(String(variant));
const getStatusTitle = (status) => STATUS_TITLES[status] || formatName(String(status));

function formatName(name) {
  const words = String(name).replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function splitThreshold(name) {
  const found = /^(.+)_(min|max)$/.exec(name);
  return found && { score: found[1], bound: found[2] };
}

/** "area_share_min" -> "too small"; other reasons stay as they are. */
function formatReason(reason) {
  const inner = /^(.*: )?(\w+)$/.exec(reason);
  const limit = inner && splitThreshold(inner[2]);
  if (!limit) return String(reason);
  const words = SCORE_LABELS[limit.score];
  const text = words ? words[limit.bound === "min" ? 2 : 3]
    : `${limit.score.replaceAll("_", " ")} too ${limit.bound === "min" ? "low" : "high"}`;
  return (inner[1] || "") + text;
}

const formatCount = (n) => Number(n || 0).toLocaleString("en-US");
const formatAmount = (n, unit) => `${formatCount(n)} ${(UNIT_NAMES[unit] || [unit, `${unit}s`])[Number(n) === 1 ? 0 : 1]}`;
const formatPercent = (part, whole) => (whole ? `${(100 * part / whole).toFixed(part && part / whole < 0.1 ? 1 : 0)} %` : "");

/** Three significant digits, no exponents, no trailing zeros of large numbers. */
function formatNumber(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 100) return formatCount(Math.round(value));
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return Number.isInteger(value) ? String(value) : value.toFixed(2);
  return size === 0 ? "0" : size < 0.001 ? value.toPrecision(1) : value.toFixed(3);
}

/** The same without trailing zeros, for a single number. */
const formatBrief = (value) => (Math.abs(value) >= 100 ? formatNumber(value) : String(Number(Number(value).toPrecision(Math.abs(value) < 0.1 ? 2 : 3))));

function formatDuration(seconds) {
  if (seconds > 0 && seconds < 0.05) return "< 0.1 s";
  if (seconds < 10) return `${formatBrief(Number(seconds.toFixed(1)))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Position in a video: 1:04.2 */
function formatClock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

function formatBytes(size) {
  return size >= 1e9 ? `${(size / 1e9).toFixed(2)} GB` : size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.ceil(size / 1e3)} kB`;
}
