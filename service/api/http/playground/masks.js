// Turns the masks of an answer into pixels. Promises: pure; a damaged mask throws instead of drawing nonsense.

/** Run lengths of a COCO compressed string, alternating outside and inside; port of rleFrString in cocoapi. */
export function runLengths(counts) {
  const runs = [];
  let position = 0;
  while (position < counts.length) {
    let value = 0;
    let weight = 1;
    let isMore = true;
    while (isMore) {
      if (position === counts.length) throw new Error("the mask ends in the middle of a number");
      const code = counts.charCodeAt(position++) - 48;
      if (code < 0 || code > 63) throw new Error("the mask holds a character that is not run-length code");
      value += (code & 31) * weight;
      weight *= 32;
      isMore = (code & 32) !== 0;
      if (!isMore && (code & 16) !== 0) value -= weight; // sign
    }
    // From the fourth number on, only the difference to the number two before is written.
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/**
 * A mask (height, width) row by row, `ink` inside; sampled from the mask's own `size`, which may be larger. It is written
 * into `mask`, which must be empty.
 */
export function maskFromRle({ size: [sourceHeight, sourceWidth], counts }, width, height, ink = 1, mask = new Uint8Array(width * height)) {
  const ends = [];
  let end = 0;
  for (const run of runLengths(counts)) {
    end += run;
    ends.push(end);
  }
  if (end !== sourceHeight * sourceWidth) {
    throw new Error(`the mask covers ${end} pixels, the image has ${sourceHeight * sourceWidth}`);
  }
  const sourceRows = Int32Array.from({ length: height }, (_, y) => Math.floor(((y + 0.5) * sourceHeight) / height));
  let run = 0; // runs go down the columns, and so does this loop: one pass over both
  for (let x = 0; x < width; x++) {
    const column = Math.floor(((x + 0.5) * sourceWidth) / width) * sourceHeight;
    for (let y = 0; y < height; ) {
      while (column + sourceRows[y] >= ends[run]) run++;
      const stop = ends[run] - column; // where the run ends, counted from the top of this column
      const isInside = (run & 1) === 1;
      if (!isInside && stop >= sourceHeight) break;
      for (; y < height && sourceRows[y] < stop; y++) if (isInside) mask[y * width + x] = ink;
    }
  }
  return mask;
}

/** A canvas onto whose pixels, one number each and all empty, `paint` puts the ink of `colour` ([r, g, b]). */
export function paintedCanvas(width, height, colour, paint) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const [ink] = new Uint32Array(Uint8Array.of(...colour, 255).buffer);
  paint(new Uint32Array(image.data.buffer), ink);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Class ids (height, width) row by row, from a base64 PNG of 8-bit ids, sampled at the size asked for. */
export async function classIdsFromPng(base64, width, height) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false; // the mean of two class ids is a third class
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  return Uint8Array.from({ length: width * height }, (_, index) => pixels[index * 4]);
}

/** A path in source pixels of the regions of one segment; fill it with the even-odd rule. */
export function pathFromPolygons(polygons) {
  const path = new Path2D();
  for (const { exterior, holes } of polygons) {
    for (const ring of [exterior, ...holes]) {
      ring.forEach(([x, y], index) => (index === 0 ? path.moveTo(x, y) : path.lineTo(x, y)));
      path.closePath();
    }
  }
  return path;
}
