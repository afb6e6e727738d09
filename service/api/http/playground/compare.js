// Says how two answers to one image differ. Promises: pure; boxes are paired once, best first.

import { producedOf, producedText } from "./produced.js";
import { cosineOf, numbersOf } from "./vectors.js";

const PAIRED_IOU = 0.5;
const SCORE_STEP = 0.01; // smaller changes of a score are rounding
const COSINE_STEP = 1e-4; // smaller distances are rounding
const AREA_STEP = 0.005; // share of the image

/** What differs, as {marked: [Set, Set], rows: [[what, left, right]]}; `marked` holds indices of each answer. */
export function differencesOf(left, right, threshold) {
  if (left.error || right.error) return { marked: [new Set(), new Set()], rows: [] };
  if (left.classes) return { marked: [new Set(), new Set()], rows: classRows(left.classes, right.classes) };
  if (left.detections) return boxDifferences(left.detections, right.detections, threshold);
  if (left.embedding) return { marked: [new Set(), new Set()], rows: vectorRows(numbersOf(left), numbersOf(right)) };
  if (producedOf(left)) return { marked: [new Set(), new Set()], rows: pictureRows(left, right) };
  return segmentDifferences(left, right);
}

function pictureRows(left, right) {
  const [one, other] = [left, right].map(producedOf);
  return one.base64 === other?.base64 ? [] : [["picture", producedText(left), other ? producedText(right) : "none"]];
}

function vectorRows(left, right) {
  const cosine = cosineOf(left, right);
  if (cosine === null) return [["numbers", String(left.length), String(right.length)]];
  return cosine > 1 - COSINE_STEP ? [] : [["cosine of both", cosine.toFixed(4), cosine.toFixed(4)]];
}

function classRows(left, right) {
  const scores = [left, right].map((classes) => new Map(classes.map(({ label, score }) => [label, score])));
  const labels = [...new Set([...scores[0].keys(), ...scores[1].keys()])];
  const rows = [];
  if (left[0]?.label !== right[0]?.label) rows.push(["best class", left[0]?.label ?? "none", right[0]?.label ?? "none"]);
  for (const label of labels) {
    const [one, other] = scores.map((byLabel) => byLabel.get(label));
    if (Math.abs((one ?? 0) - (other ?? 0)) >= SCORE_STEP) rows.push([label, percent(one), percent(other)]);
  }
  return rows;
}

function boxDifferences(left, right, threshold) {
  const shown = [left, right].map((items) => [...items.keys()].filter((index) => items[index].score >= threshold));
  const marked = shown.map((indices) => new Set(indices));
  const rows = [];
  for (const index of shown[0]) {
    const item = left[index];
    const candidates = [...marked[1]].filter((other) => right[other].class_id === item.class_id);
    const [iou, other] = candidates.map((at) => [iouOf(item.box, right[at].box), at]).sort((a, b) => b[0] - a[0])[0] ?? [0];
    if (iou < PAIRED_IOU) {
      rows.push([item.label, percent(item.score), "–"]);
      continue;
    }
    marked[0].delete(index);
    marked[1].delete(other);
    if (Math.abs(item.score - right[other].score) >= SCORE_STEP) {
      rows.push([item.label, percent(item.score), percent(right[other].score)]);
    }
  }
  for (const index of marked[1]) rows.push([right[index].label, "–", percent(right[index].score)]);
  return { marked, rows };
}

function segmentDifferences(left, right) {
  const pixels = left.width * left.height;
  const marked = [new Set(), new Set()];
  const rows = [];
  const classIds = new Set([...left.segments, ...right.segments].map(({ class_id: classId }) => classId));
  for (const classId of classIds) {
    const at = [left, right].map(({ segments }) => segments.findIndex((segment) => segment.class_id === classId));
    const [one, other] = [left.segments[at[0]], right.segments[at[1]]];
    if (one && other && Math.abs(one.area - other.area) < AREA_STEP * pixels) continue;
    at.forEach((index, side) => index >= 0 && marked[side].add(index));
    rows.push([(one ?? other).label, one ? percent(one.area / pixels) : "–", other ? percent(other.area / pixels) : "–"]);
  }
  return { marked, rows };
}

function iouOf([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  if (ax1 === bx1 && ay1 === by1 && ax2 === bx2 && ay2 === by2) return 1; // also without an area
  const width = Math.min(ax2, bx2) - Math.max(ax1, bx1);
  const height = Math.min(ay2, by2) - Math.max(ay1, by1);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both);
}

function percent(share) {
  return share === undefined ? "–" : `${(share * 100).toFixed(1)} %`;
}
