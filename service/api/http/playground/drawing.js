// Draws an image with its prediction. Promises: coordinates of the answer land on the pixels they mean.

import { drawHeat } from "./heat.js";
import { classIdsFromPng, maskFromRle, paintedCanvas, pathFromPolygons } from "./masks.js";
import { bitmapOf, drawAfter, producedOf } from "./produced.js";

// Light enough for dark text, distinct from their neighbours in the list; class ids beyond it start over.
const CLASS_COLOURS = [
  "#ff6b6b", "#4cc38a", "#ffc53d", "#5b9bff", "#c98bf7", "#2fd3d3",
  "#ff9650", "#f983c2", "#a9d83b", "#a698fb", "#7cc7ff", "#dfb088",
];
const LABEL_INK = "#101214";
const DIFFERENCE_COLOUR = "#ff00d4"; // none of the classes'
const FAINT = 0.15; // what is not highlighted while something is
const MAX_MASK_SIDE = 2048; // masks of larger images are sampled: no screen shows more
const MAX_UPSCALE = 10; // tiny images are enlarged, but stay recognisable as tiny
const SHARP_UPSCALE = 3; // from here on pixels are shown as squares

export function classColour(classId) {
  return CLASS_COLOURS[classId % CLASS_COLOURS.length];
}

/** What to draw over the image, in the order of `segments` or `detections`; made once per answer: masks are large. */
export async function maskLayers(prediction) {
  if (producedOf(prediction)) return [{ after: await bitmapOf(prediction) }];
  const { width, height, segments, detections, mask_png: png } = prediction;
  const areas = segments ?? detections?.filter((detection) => detection.area !== undefined);
  if (areas === undefined) return [];
  const scale = Math.min(1, MAX_MASK_SIDE / Math.max(width, height));
  const columns = Math.max(1, Math.round(width * scale));
  const rows = Math.max(1, Math.round(height * scale));
  const classIds = png === undefined ? null : await classIdsFromPng(png, columns, rows);
  const layerOf = async (segment) => {
    const colour = classColour(segment.class_id);
    if (segment.polygons) return { path: pathFromPolygons(segment.polygons), colour };
    const painted = (paint) => ({ canvas: paintedCanvas(columns, rows, rgbOf(colour), paint), colour });
    if (segment.rle) return painted((pixels, ink) => maskFromRle(segment.rle, columns, rows, ink, pixels));
    const ids = segment.mask_png ? await classIdsFromPng(segment.mask_png, columns, rows) : classIds;
    if (ids === null) return { colour };
    const isInside = segment.mask_png ? (id) => id !== 0 : (id) => id === segment.class_id;
    return painted((pixels, ink) => ids.forEach((id, index) => isInside(id) && (pixels[index] = ink)));
  };
  return Promise.all(areas.map(layerOf));
}

/**
 * Sizes the canvas for the room there is and draws. `view` is {room, threshold, opacity, split, highlight, marked, difference}:
 * `marked` are indices of what another version answers otherwise, `difference` is a canvas of where masks differ.
 */
export function drawScene(canvas, bitmap, prediction, layers, view) {
  const scale = Math.min(view.room.width / bitmap.width, view.room.height / bitmap.height, MAX_UPSCALE);
  const cssWidth = Math.max(1, Math.round(bitmap.width * scale));
  const cssHeight = Math.max(1, Math.round(bitmap.height * scale));
  const density = window.devicePixelRatio || 1;
  canvas.style.width = `${cssWidth}px`;
  canvas.style.height = `${cssHeight}px`;
  canvas.width = Math.round(cssWidth * density);
  canvas.height = Math.round(cssHeight * density);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < SHARP_UPSCALE;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (!prediction || prediction.error) return;
  if (prediction.explanation) drawHeat(context, canvas, prediction);
  if (layers[0]?.after) {
    const { after } = layers[0];
    context.imageSmoothingEnabled = cssWidth / after.width < SHARP_UPSCALE; // it may have more pixels than what was sent
    return drawAfter(context, canvas, after, view.split);
  }
  drawMasks(context, canvas, prediction, layers, view);
  if (view.difference) context.drawImage(view.difference, 0, 0, canvas.width, canvas.height);
  if (prediction.detections) drawBoxes(context, { cssWidth, cssHeight, density }, prediction, view);
}

/** Where the segments of two answers differ, as a canvas of one colour; null where nothing is drawn. */
export function maskDifference(predictions, layersOfBoth) {
  if (!predictions.every((prediction) => prediction?.segments) || !layersOfBoth.flat().length) return null;
  const [{ width, height }] = predictions;
  const scale = Math.min(1, MAX_MASK_SIDE / Math.max(width, height));
  const sized = () => Object.assign(document.createElement("canvas"), { width: Math.round(width * scale), height: Math.round(height * scale) });
  const all = sized();
  const context = all.getContext("2d");
  const classIds = new Set(predictions.flatMap(({ segments }) => segments.map((segment) => segment.class_id)));
  for (const classId of classIds) {
    const one = sized();
    const ink = one.getContext("2d");
    predictions.forEach(({ segments }, side) => {
      ink.globalCompositeOperation = side === 0 ? "source-over" : "xor";
      const layer = layersOfBoth[side][segments.findIndex((segment) => segment.class_id === classId)];
      if (layer?.canvas) ink.drawImage(layer.canvas, 0, 0, one.width, one.height);
      if (layer?.path) {
        ink.setTransform(one.width / width, 0, 0, one.height / height, 0, 0);
        ink.fill(layer.path, "evenodd");
        ink.resetTransform();
      }
    });
    context.drawImage(one, 0, 0);
  }
  context.globalCompositeOperation = "source-in";
  context.fillStyle = DIFFERENCE_COLOUR;
  context.fillRect(0, 0, all.width, all.height);
  return all;
}

function drawMasks(context, canvas, prediction, layers, { opacity, highlight, threshold }) {
  layers.forEach((layer, index) => {
    if (prediction.detections?.[index].score < threshold && index !== highlight) return;
    context.save();
    context.globalAlpha = highlight === null || highlight === index ? opacity : opacity * FAINT;
    if (layer.canvas) context.drawImage(layer.canvas, 0, 0, canvas.width, canvas.height);
    if (layer.path) {
      context.scale(canvas.width / prediction.width, canvas.height / prediction.height);
      context.fillStyle = layer.colour;
      context.fill(layer.path, "evenodd");
    }
    context.restore();
  });
}

function drawBoxes(context, { cssWidth, cssHeight, density }, prediction, { threshold, highlight, marked }) {
  context.save();
  context.scale(density, density); // from here on in CSS pixels
  const scaleX = cssWidth / prediction.width;
  const scaleY = cssHeight / prediction.height;
  const shown = prediction.detections
    .map((detection, index) => ({ detection, index }))
    .filter(({ detection, index }) => detection.score >= threshold || index === highlight)
    .map(({ detection, index }) => {
      const [x1, y1, x2, y2] = detection.box;
      const place = { x: x1 * scaleX, y: y1 * scaleY, width: (x2 - x1) * scaleX, height: (y2 - y1) * scaleY };
      const isMarked = marked?.has(index) ?? false;
      return { detection, place, isMarked, alpha: highlight === null || highlight === index ? 1 : FAINT };
    })
    .reverse(); // the best last, so that nothing covers it
  for (const { detection, place, alpha, isMarked } of shown) {
    context.setLineDash(isMarked ? [6, 4] : []);
    drawBox(context, place, classColour(detection.class_id), alpha);
  }
  // After all boxes: a label must stay readable where boxes overlap.
  for (const { detection, place, alpha, isMarked } of shown) drawLabel(context, detection, place, alpha, cssWidth, isMarked);
  context.restore();
}

function drawBox(context, place, colour, alpha) {
  context.globalAlpha = alpha;
  context.lineJoin = "round";
  for (const [style, lineWidth] of [["rgb(0 0 0 / 55%)", 4], [colour, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.strokeRect(place.x, place.y, place.width, place.height);
  }
}

function drawLabel(context, detection, place, alpha, cssWidth, isMarked) {
  const text = `${isMarked ? "≠ " : ""}${detection.label} ${Math.round(detection.score * 100)}%`;
  context.globalAlpha = alpha;
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const width = context.measureText(text).width + 10;
  const height = 18;
  const x = Math.min(Math.max(0, place.x - 1), Math.max(0, cssWidth - width));
  const y = place.y >= height ? place.y - height : place.y; // inside when there is no room above
  context.fillStyle = classColour(detection.class_id);
  context.beginPath();
  context.roundRect(x, y, width, height, 3);
  context.fill();
  context.fillStyle = LABEL_INK;
  context.fillText(text, x + 5, y + height / 2 + 0.5);
}

function rgbOf(hex) {
  return [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
}

/** A made-up picture of digits, for those who have none at hand. Returns a PNG file. */
export async function sampleImage(digitCount) {
  const canvas = document.createElement("canvas");
  canvas.width = digitCount === 1 ? 128 : 480;
  canvas.height = digitCount === 1 ? 128 : 320;
  const context = canvas.getContext("2d");
  const background = context.createLinearGradient(0, 0, canvas.width, canvas.height);
  const hue = Math.floor(Math.random() * 360);
  background.addColorStop(0, `hsl(${hue} 30% 22%)`);
  background.addColorStop(1, `hsl(${hue + 60} 35% 34%)`);
  context.fillStyle = background;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const cellWidth = canvas.width / Math.ceil(digitCount / 2);
  const cellHeight = canvas.height / Math.min(2, digitCount);
  for (let index = 0; index < digitCount; index++) {
    const column = Math.floor(index / 2);
    const row = index % 2;
    context.save();
    context.translate((column + 0.4 + Math.random() * 0.2) * cellWidth, (row + 0.4 + Math.random() * 0.2) * cellHeight);
    context.rotate((Math.random() - 0.5) * 0.4);
    context.fillStyle = `hsl(${Math.floor(Math.random() * 360)} 80% 88%)`;
    context.font = `700 ${Math.round(Math.min(cellWidth, cellHeight) * (0.55 + Math.random() * 0.3))}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(Math.floor(Math.random() * 10)), 0, 0);
    context.restore();
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], "sample.png", { type: "image/png" });
}
