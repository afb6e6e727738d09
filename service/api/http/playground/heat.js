// Draws where the network looked over its picture. Promises: the grid lies where the answer says.

const OPACITY = 0.75; // where it looked most

/** The colours of a grid, four bytes a cell: red to yellow, and the more transparent the less it looked there. */
export function heatColours({ grid, rows, columns }) {
  const cells = Uint8Array.from(atob(grid), (character) => character.charCodeAt(0));
  if (cells.length !== rows * columns) throw new Error(`the explanation has ${cells.length} cells, not ${rows} x ${columns}`);
  const colours = new Uint8ClampedArray(4 * cells.length);
  cells.forEach((heat, index) => colours.set([255, heat, 0, Math.round(OPACITY * heat)], 4 * index));
  return colours;
}

/** `prediction.explanation` is a grid with its place in source pixels. */
export function drawHeat(context, canvas, { width, height, explanation }) {
  const { rows, columns, box: [x1, y1, x2, y2] } = explanation;
  const cells = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  cells.getContext("2d").putImageData(new ImageData(heatColours(explanation), columns, rows), 0, 0);
  const [scaleX, scaleY] = [canvas.width / width, canvas.height / height];
  context.save();
  context.imageSmoothingEnabled = true;
  context.drawImage(cells, x1 * scaleX, y1 * scaleY, (x2 - x1) * scaleX, (y2 - y1) * scaleY);
  context.restore();
}
