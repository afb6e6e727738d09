// Builds the parts of the page from answers. Promises: text from the server is only ever text, never markup.

import { producedOf, producedText } from "./produced.js";
import { reportPath } from "./api.js";
import { classColour } from "./drawing.js";
import { likenesses, numbersOf, vectorStrip } from "./vectors.js";

const METRIC_NAMES = { top1: "top-1", map: "mAP", miou: "mIoU", mask_map: "mask mAP", label_map: "mAP per label", recall_at_1: "recall@1", ssim: "SSIM", depth_accuracy: "depth accuracy" };
const STAGES = ["decode", "queue", "infer", "postprocess", "rest"];

/** An element with attributes and children; `null` and `false` children are left out. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== false));
  return node;
}

/** One radio button per model. */
export function modelChoices(models, chosen, onChoose) {
  return models.map((model) => {
    const shown = shownVersion(model);
    const input = element("input", { type: "radio", name: "model", id: `model-${model.name}`, value: model.name });
    input.checked = model.name === chosen;
    input.addEventListener("change", () => onChoose(model.name));
    return element(
      "label",
      { class: "model" },
      input,
      element("span", { class: "model-name" }, model.name),
      element("span", { class: "task" }, model.task ?? "unknown task"),
      shown && element("span", { class: "model-version" }, stateChip(shown.state), `version ${shown.version} · ${shown.variant || "no variant"}`, ...flags(shown)),
      shown?.variant && element("span", { class: "model-version" }, headline(shown)),
    );
  });
}

/** What a reader must know before trusting a version. */
function flags({ judged, signed_by: signedBy }) {
  const texts = [judged === false ? "unjudged" : null, signedBy === "unsigned" ? "unsigned" : null];
  return texts.filter((text) => text !== null).map((text) => element("span", { class: "flag" }, text));
}

function headline({ metric, operating_point: point, latency }) {
  const figures = metric ? [`${METRIC_NAMES[metric.name] ?? metric.name} ${metric.value.toFixed(3)}`] : [];
  if (point) figures.push(`${point.metric.value.toFixed(3)} from score ${point.score_threshold}`);
  if (latency.length) figures.push(`${compact(fastestOf(latency).images_per_s)} images/s`);
  return figures.join(" · ");
}

function fastestOf(latency) {
  return latency.reduce((best, item) => (item.images_per_s > best.images_per_s ? item : best));
}

function shownVersion(model) {
  return model.versions.find((version) => version.version === model.default_version) ?? model.versions[0];
}

function stateChip(state) {
  return element("span", { class: `state state-${state}` }, state);
}

/** Ways to ask a model: by its traffic policy, by label, by version. Each is {value, text, isReady}. */
export function targetChoices(model) {
  const policy = model.default_version ? `By traffic policy (now ${model.default_version})` : "By traffic policy (none ready)";
  return [
    { value: "policy:", text: policy, isReady: true },
    ...Object.entries(model.labels).map(([label, version]) => ({
      value: `label:${label}`,
      text: `Label ${label} (now ${version})`,
      isReady: true,
    })),
    ...model.versions.map(({ version, variant, state }) => ({
      value: `version:${version}`,
      text: `Version ${version}${variant ? `, ${variant}` : ""}${state === "ready" ? "" : ` (${state})`}`,
      isReady: state === "ready",
    })),
  ];
}

/** Whose pictures stand for a model: the chosen version's where it has some, else any version's; null without. */
export function sampledVersion(model, choice) {
  const sampled = model.versions.filter((version) => version.has_samples && version.state === "ready");
  return (sampled.find(({ version }) => version === versionOf(model, choice)) ?? sampled[0])?.version ?? null;
}

/** The version that a choice of `targetChoices` means now; null when none is ready. */
function versionOf(model, choice) {
  const [kind, name] = splitOnce(choice);
  return kind === "policy" ? model.default_version : kind === "label" ? (model.labels[name] ?? null) : name;
}

/** State and measured figures of every version of a model; `onReport` gets a version's number and the click. */
export function versionFigures(model, onReport) {
  return model.versions.map((version) => {
    const fastest = version.latency.length ? fastestOf(version.latency) : null;
    const single = version.latency.find((item) => item.batch_size === 1);
    return element(
      "section",
      { class: "version", "aria-label": `Version ${version.version}` },
      element("h3", {}, `Version ${version.version}`, stateChip(version.state), ...flags(version)),
      version.reason && element("p", { class: "reason" }, version.reason),
      element(
        "dl",
        {},
        ...pair("variant", [version.variant, version.device].filter(Boolean).join(" on ")),
        ...(version.choice ? pair("chosen", version.choice) : []),
        ...(version.metric ? metricPair(version.metric) : []),
        ...(version.operating_point ? operatingPair(version.operating_point) : []),
        ...(version.judged === false ? pair("unjudged", "whether its answers are right was never measured") : []),
        ...(single ? pair("one by one", `${milliseconds(single.p50_ms)} median, ${milliseconds(single.p99_ms)} p99`) : []),
        ...(version.signed_by ? pair("signed by", version.signed_by) : []),
        ...(fastest ? pair("throughput", `${compact(fastest.images_per_s)} images/s in batches of ${fastest.batch_size}`) : []),
        ...(version.has_report ? pair("report", reportLink(model.name, version.version, onReport)) : []),
      ),
    );
  });
}

function reportLink(model, version, onReport) {
  const href = reportPath(model, version);
  return element("a", { href, target: "_blank", rel: "noopener", onclick: (event) => onReport(version, event) }, "figures, checks and pictures");
}

function metricPair({ name, value, ci_low, ci_high, split, images }) {
  const interval = ` (${ci_low.toFixed(3)} to ${ci_high.toFixed(3)})`;
  return [
    ...pair(METRIC_NAMES[name] ?? name, element("span", {}, element("strong", {}, value.toFixed(3)), interval)),
    ...pair("measured on", counted(images, `${split} image`, `${split} images`)),
  ];
}

function operatingPair({ score_threshold, metric, precision, recall, f1 }) {
  const figures = { precision, recall, F1: f1 };
  const shares = Object.entries(figures).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(", ");
  return pair(`from score ${score_threshold}`, element("span", {}, element("strong", {}, metric.value.toFixed(3)), ` (${shares})`));
}

function pair(term, description) {
  return description ? [element("dt", {}, term), element("dd", {}, description)] : [];
}

/** The rows of one prediction; `onHighlight` gets a row's index, or null when it loses attention. */
export function resultRows(prediction, { threshold, onHighlight, others = [] }) {
  if (prediction.error) return [problemCard(prediction.error)];
  if (prediction.classes) return [rows(prediction.classes.map((item) => scoreRow(item)), "No label reaches the score threshold.")];
  if (prediction.detections) return detectionRows(prediction.detections, threshold, onHighlight);
  if (prediction.embedding) return vectorRows(prediction, others);
  if (producedOf(prediction)) return producedRows(prediction);
  return [segmentRows(prediction, onHighlight)];
}

function vectorRows(prediction, others) {
  const { dim, dtype } = prediction.embedding;
  const rowsOfOthers = likenesses(prediction, others).map((item) => barRow(item, item.score, item.score.toFixed(3)));
  return [
    element("p", { class: "help" }, `A vector of ${dim} numbers, ${dtype}, of length 1.`),
    vectorStrip(numbersOf(prediction), classColour(3)),
    rows(rowsOfOthers, "Choose several images to see how alike their vectors are (cosine)."),
  ];
}

function producedRows(prediction) {
  const file = { href: `data:image/png;base64,${producedOf(prediction).base64}`, download: "answer.png" };
  return [element("p", { class: "help" }, `${producedText(prediction)}. `, element("a", file, "Save it"))];
}

function detectionRows(detections, threshold, onHighlight) {
  const shown = detections.map((item, index) => ({ item, index })).filter(({ item }) => item.score >= threshold);
  const hidden = detections.length - shown.length;
  const empty = hidden
    ? `No box reaches the threshold; the best score is ${percent(detections[0].score)}.`
    : "Nothing was found in this image.";
  return [
    element("p", { class: "help" }, `${counted(shown.length, "box", "boxes")} shown${hidden ? `, ${hidden} below the threshold` : ""}`),
    rows(shown.map(({ item, index }) => scoreRow(item, index, onHighlight)), empty),
  ];
}

function segmentRows({ width, height, segments }, onHighlight) {
  const pixels = width * height;
  return rows(
    segments.map((segment, index) => {
      const share = segment.area / pixels;
      const text = `${percent(share)} · ${segment.area.toLocaleString("en")} px`;
      return barRow(segment, share, text, index, onHighlight);
    }),
    "No segment but background in this image.",
  );
}

function scoreRow(item, index, onHighlight) {
  return barRow(item, item.score, percent(item.score), index, onHighlight);
}

function barRow(item, share, text, index, onHighlight) {
  const bar = element("span", { class: "bar" });
  const fill = element("span", { class: "bar-fill" });
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  fill.style.background = classColour(item.class_id);
  bar.append(fill);
  const swatch = element("span", { class: "swatch" });
  swatch.style.background = classColour(item.class_id);
  const parts = [swatch, element("span", { class: "row-label" }, item.label), bar, element("span", { class: "row-figure" }, text)];
  if (!onHighlight) return element("li", { class: "row" }, ...parts);
  const attention = () => onHighlight(index);
  const leave = () => onHighlight(null);
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", class: "row", onmouseenter: attention, onmouseleave: leave, onfocus: attention, onblur: leave },
      ...parts,
    ),
  );
}

function rows(items, emptyText) {
  return items.length ? element("ul", { class: "rows" }, ...items) : element("p", { class: "empty" }, emptyText);
}

/** Where the time went: a bar over all stages, and their figures. */
export function timingPanel(timings, roundTripMs, imageCount) {
  const known = STAGES.slice(0, -1).reduce((sum, stage) => sum + timings[stage], 0);
  // With several images each stage is that of the slowest one, so together they can exceed the total.
  const durations = { ...timings, rest: Math.max(0, timings.total - known) };
  const sum = known + durations.rest;
  const bar = element("div", { class: "timing-bar", role: "img", "aria-label": STAGES.map((stage) => `${stage} ${milliseconds(durations[stage])}`).join(", ") });
  for (const stage of STAGES) {
    const part = element("span", { class: `stage-${stage}`, title: `${stage} ${milliseconds(durations[stage])}` });
    part.style.flexGrow = String(sum > 0 ? durations[stage] / sum : 0);
    bar.append(part);
  }
  const figures = STAGES.map((stage) =>
    element("div", {}, element("dt", {}, element("span", { class: `swatch stage-${stage}` }), stage), element("dd", {}, milliseconds(durations[stage]))),
  );
  const notes = [`${milliseconds(roundTripMs)} until the answer was in this browser.`];
  if (imageCount > 1) notes.push("Each stage is that of the slowest image; images run side by side, those in tiles one after the other.");
  return [
    element("p", { class: "total" }, element("strong", {}, milliseconds(timings.total)), " in the server"),
    bar,
    element("dl", { class: "stages" }, ...figures),
    element("p", { class: "help" }, notes.join(" ")),
  ];
}

/** A problem document for a reader. */
export function problemCard({ title, status, detail, request_id: requestId, retry_after_s: retryAfterS }) {
  return element(
    "div",
    { class: "problem" },
    element("h3", {}, title, status ? element("span", { class: "status" }, String(status)) : null),
    element("p", {}, detail),
    retryAfterS ? element("p", {}, `The server asks to wait ${retryAfterS} s before the next try.`) : null,
    requestId ? element("p", { class: "help" }, "Request id ", element("code", {}, requestId)) : null,
  );
}

/** One sentence on a prediction, for those who hear the page. */
export function summaryOf(prediction, threshold) {
  const summary = answerSummary(prediction, threshold);
  const trust = prediction?.trust;
  return trust ? `${summary}. ${trust.familiar ? "Familiar" : "Unfamiliar picture: check the answer"} (${trust.score.toFixed(2)})` : summary;
}

function answerSummary(prediction, threshold) {
  if (!prediction) return "Image without an answer yet";
  if (prediction.error) return `${prediction.error.title}: ${prediction.error.detail}`;
  if (prediction.classes) {
    const [best] = prediction.classes;
    return best ? `Class ${best.label}, ${percent(best.score)}` : "No class";
  }
  if (prediction.detections) {
    const shown = prediction.detections.filter((item) => item.score >= threshold);
    return `${counted(shown.length, "box", "boxes")}${shown.length ? `: ${shown.map((item) => item.label).join(", ")}` : ""}`;
  }
  if (producedOf(prediction)) return producedText(prediction);
  if (prediction.embedding) return `A vector of ${prediction.embedding.dim} numbers`;
  const labels = prediction.segments.map((segment) => segment.label);
  return `${counted(labels.length, "segment", "segments")}${labels.length ? `: ${labels.join(", ")}` : ""}`;
}

/** Two answers beside each other: what differs, and both figures. */
export function differenceTable(names, { rows }, count) {
  const sentence = rows.length ? `${counted(rows.length, "difference", "differences")} in image ${count}` : `No difference in image ${count}`;
  if (!rows.length) return [element("p", { class: "help" }, sentence)];
  const head = element("tr", {}, element("th", { scope: "col" }, "what"), ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map(([what, ...values]) => element("tr", {}, element("th", { scope: "row" }, what), ...values.map((value) => element("td", {}, value))));
  return [element("p", { class: "help" }, sentence), element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))];
}

/** The load in words; `null` before the second look. */
export function loadFigures({ answeredPerS, refusedPerS, meanMs, inFlight, waitMs }) {
  return [
    ...pair("answered", `${answeredPerS.toFixed(1)} requests/s`),
    ...pair("refused", `${refusedPerS.toFixed(1)} requests/s`),
    ...pair("mean time", meanMs === null ? "no request" : milliseconds(meanMs)),
    ...pair("in flight", counted(inFlight, "image", "images")),
    ...pair("expected wait", milliseconds(waitMs)),
  ];
}

export function splitOnce(text) {
  const at = text.indexOf(":");
  return [text.slice(0, at), text.slice(at + 1)];
}

function counted(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}

function percent(share) {
  return `${(share * 100).toFixed(1)} %`;
}

function milliseconds(value) {
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

function compact(value) {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}
