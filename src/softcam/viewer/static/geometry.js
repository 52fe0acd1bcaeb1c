/** Where things are: from cells to network input to the original image and back, as `softcam.imaging.Geometry`. */

/** @typedef {{x: number, y: number, width: number, height: number}} Rectangle */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {{left: number, top: number, right: number, bottom: number}} Edges */
/**
 * @typedef {object} Geometry
 * @property {number} original_height
 * @property {number} original_width
 * @property {number} input_height
 * @property {number} input_width
 * @property {number} scale_x
 * @property {number} scale_y
 * @property {number} offset_x
 * @property {number} offset_y
 */
/** @typedef {[number, number]} Grid rows and columns */

/**
 * @param {Geometry} geometry
 * @param {Point} point in the network's input
 * @returns {Point} in the original
 */
export function toOriginal(geometry, { x, y }) {
  return { x: x * geometry.scale_x + geometry.offset_x, y: y * geometry.scale_y + geometry.offset_y };
}

/**
 * @param {Geometry} geometry
 * @param {Point} point in the original
 * @returns {Point} in the network's input
 */
export function toInput(geometry, { x, y }) {
  return { x: (x - geometry.offset_x) / geometry.scale_x, y: (y - geometry.offset_y) / geometry.scale_y };
}

/**
 * Return what lies between edges of the network's input of the original, clipped to the image.
 * @param {Geometry} geometry
 * @param {Edges} edges in pixels of the network's input
 * @returns {Rectangle}
 */
export function originalRectangle(geometry, { left, top, right, bottom }) {
  const start = toOriginal(geometry, { x: left, y: top });
  const end = toOriginal(geometry, { x: right, y: bottom });
  const x0 = within(start.x, geometry.original_width);
  const y0 = within(start.y, geometry.original_height);
  return {
    x: x0,
    y: y0,
    width: within(end.x, geometry.original_width) - x0,
    height: within(end.y, geometry.original_height) - y0,
  };
}

/** What the network sees of the original. @param {Geometry} geometry */
export function viewRectangle(geometry) {
  return originalRectangle(geometry, { left: 0, top: 0, right: geometry.input_width, bottom: geometry.input_height });
}

/**
 * Return the part of the original that one cell stands for.
 * @param {Geometry} geometry
 * @param {Grid} grid
 * @param {number} row
 * @param {number} column
 */
export function cellRectangle(geometry, [rows, columns], row, column) {
  const width = geometry.input_width / columns;
  const height = geometry.input_height / rows;
  return originalRectangle(geometry, {
    left: column * width,
    top: row * height,
    right: (column + 1) * width,
    bottom: (row + 1) * height,
  });
}

/**
 * Return the cell at a point of the original, or null outside of what the network sees.
 * @param {Geometry} geometry
 * @param {Grid} grid
 * @param {Point} point
 */
export function cellAt(geometry, [rows, columns], point) {
  const inside = toInput(geometry, point);
  const row = Math.floor((inside.y * rows) / geometry.input_height);
  const column = Math.floor((inside.x * columns) / geometry.input_width);
  const found = row >= 0 && row < rows && column >= 0 && column < columns;
  return found ? { row, column } : null;
}

/** @typedef {{height: number|null, width: number|null, bound: boolean}} Field input pixels; null sees everything */

/**
 * Return how far a cell sees, in pixels of the input: as far as the layers allow where that is known, else as measured.
 * @param {any} model model info, or null
 * @returns {Field|null}
 */
export function readField(model) {
  const bound = model?.theoretical_receptive_field;
  const field = bound ?? model?.receptive_field;
  if (!field || field.length !== 2) return null;
  return { height: field[0], width: field[1], bound: Boolean(bound) };
}

/**
 * Return what a cell sees of the original: its field around its centre, clipped to the image.
 * @param {Geometry} geometry
 * @param {Grid} grid
 * @param {number} row
 * @param {number} column
 * @param {Field} field
 */
export function fieldRectangle(geometry, [rows, columns], row, column, field) {
  const vertical = span(((row + 0.5) * geometry.input_height) / rows, field.height, geometry.input_height);
  const horizontal = span(((column + 0.5) * geometry.input_width) / columns, field.width, geometry.input_width);
  const [[left, right], [top, bottom]] = [horizontal, vertical];
  return originalRectangle(geometry, { left, top, right, bottom });
}

/**
 * @param {number} centre
 * @param {number|null} extent
 * @param {number} size
 */
function span(centre, extent, size) {
  if (extent === null) return [0, size];
  return [Math.max(0, centre - extent / 2), Math.min(size, centre + extent / 2)];
}

/**
 * @param {number} value
 * @param {number} size
 */
function within(value, size) {
  return Math.min(Math.max(value, 0), size);
}
