// Shows an embedder's vector. Promises: pure but for drawing; vectors have the length 1, so a product is the cosine.

const STRIP = { width: 512, height: 64 };

/** The numbers of an answer's vector; the page asks for JSON. */
export function numbersOf({ embedding }) {
  return embedding?.values ?? null;
}

/** From -1 to 1; null for vectors of different sizes, which belong to different networks. */
export function cosineOf(left, right) {
  if (left.length !== right.length) return null;
  return left.reduce((sum, value, index) => sum + value * right[index], 0);
}

/** The other images of the request, as rows of a list: {label, class_id, score}. */
export function likenesses(prediction, others) {
  const numbers = numbersOf(prediction);
  return others.flatMap((other, index) => {
    const theirs = other === prediction ? null : numbersOf(other);
    const score = theirs && cosineOf(numbers, theirs);
    return score === null ? [] : [{ label: `like image ${index + 1}`, class_id: index, score }];
  });
}

/** A bar per number, above the middle or below it. */
export function vectorStrip(numbers, colour) {
  const canvas = Object.assign(document.createElement("canvas"), STRIP, { className: "vector" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${numbers.length} numbers`);
  const context = canvas.getContext("2d");
  const most = Math.max(...numbers.map(Math.abs)) || 1;
  const step = STRIP.width / numbers.length;
  context.fillStyle = colour;
  numbers.forEach((value, index) => {
    const height = (value / most) * (STRIP.height / 2);
    context.fillRect(index * step, STRIP.height / 2 - Math.max(0, height), Math.max(step * 0.8, 0.5), Math.abs(height));
  });
  return canvas;
}
