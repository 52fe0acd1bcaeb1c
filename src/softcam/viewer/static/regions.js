/** Connected regions of evidence, found as `Evidence.regions` finds them. */

import { cellRectangle } from "./geometry.js";

/**
 * @typedef {object} Region
 * @property {number[]} cells
 * @property {boolean} supports whether the cells are for the class
 * @property {number} contribution what they add to the mean of the map
 */

/**
 * Return the regions that contribute most: cells that touch along their sides and are all for, or all against.
 * @param {Float64Array} values a map, row by row
 * @param {[number, number]} grid
 * @param {number} share of the strongest cell that a cell must reach, in (0, 1]
 * @param {number} most how many regions
 * @returns {Region[]} by falling absolute contribution
 */
export function findRegions(values, grid, share, most) {
  const strongest = values.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
  if (strongest === 0) return [];
  const threshold = share * strongest;
  const found = [
    ...collect(values, grid, (value) => value >= threshold, true),
    ...collect(values, grid, (value) => value <= -threshold, false),
  ];
  return found.sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)).slice(0, most);
}

/**
 * @param {Float64Array} values
 * @param {[number, number]} grid
 * @param {(value: number) => boolean} belongs
 * @param {boolean} supports
 */
function collect(values, grid, belongs, supports) {
  const seen = new Uint8Array(values.length);
  /** @type {Region[]} */
  const regions = [];
  for (let cell = 0; cell < values.length; cell += 1) {
    if (seen[cell] || !belongs(values[cell])) continue;
    const cells = flood(values, grid, cell, seen, belongs);
    const sum = cells.reduce((total, index) => total + values[index], 0);
    regions.push({ cells, supports, contribution: sum / values.length });
  }
  return regions;
}

/**
 * @param {Float64Array} values
 * @param {[number, number]} grid
 * @param {number} start
 * @param {Uint8Array} seen
 * @param {(value: number) => boolean} belongs
 */
function flood(values, grid, start, seen, belongs) {
  const waiting = [start];
  const cells = [];
  seen[start] = 1;
  while (waiting.length > 0) {
    const cell = /** @type {number} */ (waiting.pop());
    cells.push(cell);
    for (const next of neighbours(cell, grid)) {
      if (seen[next] || !belongs(values[next])) continue;
      seen[next] = 1;
      waiting.push(next);
    }
  }
  return cells.sort((a, b) => a - b);
}

/**
 * @param {number} cell
 * @param {[number, number]} grid
 */
function neighbours(cell, [rows, columns]) {
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  const found = [];
  if (row > 0) found.push(cell - columns);
  if (row < rows - 1) found.push(cell + columns);
  if (column > 0) found.push(cell - 1);
  if (column < columns - 1) found.push(cell + 1);
  return found;
}

/**
 * Return where a region lies, as `Region` of the library does: its box and area in pixels of the original, and its area
 * in square millimetres, or null where the distance of pixels is not known.
 * @param {number[]} cells
 * @param {[number, number]} grid
 * @param {import("./geometry.js").Geometry} geometry
 * @param {[number, number]|null} spacing
 */
export function placeRegion(cells, grid, geometry, spacing) {
  const place = (/** @type {number} */ cell) =>
    cellRectangle(geometry, grid, Math.floor(cell / grid[1]), cell % grid[1]);
  const [first, ...others] = cells.map(place);
  const pixels = others.reduce((sum, { width, height }) => sum + width * height, first.width * first.height);
  const union = others.reduce((box, { x, y, width, height }) => {
    const [left, top] = [Math.min(box.x, x), Math.min(box.y, y)];
    const [right, bottom] = [Math.max(box.x + box.width, x + width), Math.max(box.y + box.height, y + height)];
    return { x: left, y: top, width: right - left, height: bottom - top };
  }, first);
  const millimetres = spacing && pixels * spacing[0] * spacing[1];
  return { box: [union.x, union.y, union.width, union.height], pixels, millimetres };
}
