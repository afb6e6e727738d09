// Shows the picture that a network made beside the one that was sent. Promises: nothing is fetched for it.

/** The file in an answer of task image, {width, height, format, base64}, or null. */
export function producedOf(prediction) {
  return prediction?.image ?? prediction?.depth ?? null;
}

/** One sentence on it. */
export function producedText(prediction) {
  const { width, height } = producedOf(prediction);
  if (!prediction.depth) return `A picture of ${width} × ${height}`;
  const { scale, offset } = prediction.depth;
  return `Depths of ${width} × ${height} pixels, from ${offset.toPrecision(3)} to ${(offset + 65535 * scale).toPrecision(3)}`;
}

/** As a PNG of which canvases can draw; depths from the smallest (black) to the largest. */
export function bitmapOf(prediction) {
  const bytes = Uint8Array.from(atob(producedOf(prediction).base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/** Draws what was made over what was sent, right of `split` (0 to 1), and a line between them. */
export function drawAfter(context, canvas, bitmap, split) {
  const edge = Math.round(canvas.width * split);
  context.save();
  context.beginPath();
  context.rect(edge, 0, canvas.width - edge, canvas.height);
  context.clip();
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  context.restore();
  context.fillStyle = "#ffffff";
  context.fillRect(edge - 1, 0, 2, canvas.height);
}
