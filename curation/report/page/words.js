// How numbers, scores and reasons are said.

const SCORE_WORDS = {
  area_share: ["Area", "mask pixels / frame pixels", "too small", "too large"],
  sharpness: ["Sharpness", "variance of the Laplacian", "blurred", "noisy"],
  brightness: ["Brightness", "mean luma of the subject, 0 to 255", "too dark", "too bright"],
  overlap_iou: ["Overlap", "highest mask IoU with a larger subject", "no overlap", "overlaps a larger subject"],
  overlap_containment: ["Containment", "share inside a larger subject", "stands alone", "part of a larger subject"],
  border_share: ["Border", "share of the frame's border covered", "off the border", "lies along the border"],
  clipped_share: ["Clipped", "share of pixels at the ends of the luma range", "nothing clipped", "over- or underexposed"],
  grounding: ["Detection", "detector's confidence, 0 to 1", "weak detection", "detection too strong"],
  label: ["Label", "confidence that it is what the phrase names", "may be another phrase", "label too sure"],
  segment: ["Mask quality", "segmenter's own estimate, 0 to 1", "poor mask", "mask too sure"],
  clip_category: ["Category", "probability of its own category", "not its category", "category too sure"],
  clip_margin: ["Category margin", "own category minus the best other", "close to another category", "margin too large"],
  visible_share: ["Visible", "share of the sampled frames that show it", "seldom seen", "seen too often"],
  flow_foreground: ["Motion", "mean flow on it, px of a 720 px frame", "moves too little", "moves too much"],
  flow_background: ["Camera", "mean flow beside the subjects, same unit", "camera moves too little", "camera moves too much"],
  face_count: ["Faces", "faces inside the subject", "no face", "several faces"],
  face_share: ["Face size", "largest face / subject's box", "face too small", "face too large"],
  face_score: ["Face score", "face detector's confidence, 0 to 1", "unsure face", "face too sure"],
  face_frontality: ["Frontality", "1 looks at the camera, 0 is profile", "face turned away", "face too frontal"],
};
const STATUS_WORDS = { kept: "Kept", rejected: "Rejected", failed: "Failed", open: "Unfinished" };
const VARIANT_WORDS = { crop: "Crop", segment: "Segment", inpaint: "Inpaint", redux: "Redux", crosspair: "Cross-pair", retrieved: "Retrieved" };
const UNIT_WORDS = { video: ["video", "videos"], clip: ["clip", "clips"], subject: ["subject", "subjects"] };

const VARIANT_ORDER = Object.keys(VARIANT_WORDS);
const variantRank = (variant) => VARIANT_ORDER.indexOf(variant) + 1 || 99;
const scoreTitle = (score) => (SCORE_WORDS[score] || [plain(score)])[0];
const scoreMeaning = (score) => (SCORE_WORDS[score] || ["", ""])[1];
const variantTitle = (variant) => VARIANT_WORDS[variant] || plain(String(variant));
const statusTitle = (status) => STATUS_WORDS[status] || plain(String(status));

function plain(name) {
  const words = String(name).replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function splitThreshold(name) {
  const found = /^(.+)_(min|max)$/.exec(name);
  return found && { score: found[1], bound: found[2] };
}

/** "area_share_min" -> "too small"; sentences are left as they are. */
function reasonText(reason) {
  const inner = /^(.*: )?(\w+)$/.exec(reason);
  const limit = inner && splitThreshold(inner[2]);
  if (!limit) return String(reason);
  const words = SCORE_WORDS[limit.score];
  const said = words ? words[limit.bound === "min" ? 2 : 3]
    : `${limit.score.replaceAll("_", " ")} too ${limit.bound === "min" ? "low" : "high"}`;
  return (inner[1] || "") + said;
}

const count = (n) => Number(n || 0).toLocaleString("en-US");
const some = (n, unit) => `${count(n)} ${(UNIT_WORDS[unit] || [unit, `${unit}s`])[Number(n) === 1 ? 0 : 1]}`;
const percent = (part, whole) => (whole ? `${(100 * part / whole).toFixed(part && part / whole < 0.1 ? 1 : 0)} %` : "");

/** Three significant digits, no exponents, no trailing zeros of large numbers. */
function number(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 100) return count(Math.round(value));
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return Number.isInteger(value) ? String(value) : value.toFixed(2);
  return size === 0 ? "0" : size < 0.001 ? value.toPrecision(1) : value.toFixed(3);
}

/** The same without trailing zeros, for a number that stands alone. */
const brief = (value) => (Math.abs(value) >= 100 ? number(value) : String(Number(Number(value).toPrecision(Math.abs(value) < 0.1 ? 2 : 3))));

function duration(seconds) {
  if (seconds > 0 && seconds < 0.05) return "< 0.1 s";
  if (seconds < 10) return `${brief(Number(seconds.toFixed(1)))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Position in a video: 1:04.2 */
function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

function bytes(size) {
  return size >= 1e9 ? `${(size / 1e9).toFixed(2)} GB` : size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.ceil(size / 1e3)} kB`;
}
