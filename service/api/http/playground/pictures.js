// Pictures of files, as the server sees them. Promises: a bitmap that is replaced is closed.

/** Null for what cannot be shown: not every format that the server takes, nor every damaged file; it is sent all the same. */
export async function bitmapOf(file, imageOrientation) {
  try {
    return await createImageBitmap(file, { imageOrientation });
  } catch {
    return null;
  }
}

/**
 * Makes an image's bitmap the picture as the server saw it: upright, or as stored where only that has the answer's size.
 * A half turn or a mirror hides which of them it is; then it stays as it was.
 */
export async function fitBitmap(image, prediction) {
  const fits = (bitmap) => bitmap.width === prediction.width && bitmap.height === prediction.height;
  if (!image.bitmap || prediction.error || fits(image.bitmap)) return;
  for (const imageOrientation of ["none", "from-image"]) {
    const bitmap = await bitmapOf(image.file, imageOrientation);
    if (!bitmap) continue;
    image.bitmap.close();
    image.bitmap = bitmap;
    if (fits(bitmap)) return;
  }
}
