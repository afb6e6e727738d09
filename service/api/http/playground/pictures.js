// Pictures of files, as the server sees them. Promises: a bitmap that is replaced is closed.

/** Null for what cannot be shown: not every format that the server takes, nor every damaged file; it is sent all the same. */
export async function bitmapOf(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

/**
 * Makes an image's bitmap the picture as the server saw it: upright, or as stored where only that has the answer's size.
 * A half turn or a mirror hides which of them it is; then it stays as it was.
 */
export async function fitBitmap(image, prediction) {
  const fits = (bitmap) => bitmap?.width === prediction.width && bitmap?.height === prediction.height;
  if (!image.bitmap || prediction.error || fits(image.bitmap)) return;
  for (const file of [await withoutTurn(image.file), image.file]) {
    const bitmap = await bitmapOf(file);
    if (fits(bitmap)) {
      image.bitmap.close();
      image.bitmap = bitmap;
      return;
    }
    bitmap?.close();
  }
}

/** A JPEG without its EXIF segments, which say how it is turned: browsers have no word that leaves it as stored. */
async function withoutTurn(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return file;
  const parts = [bytes.subarray(0, 2)];
  let position = 2;
  while (bytes[position] === 0xff && bytes[position + 1] !== 0xda) {
    const end = position + 2 + ((bytes[position + 2] << 8) | bytes[position + 3]);
    if (bytes[position + 1] !== 0xe1) parts.push(bytes.subarray(position, end));
    position = end;
  }
  return new Blob([...parts, bytes.subarray(position)], { type: "image/jpeg" });
}
