/** A map as an image: cell by cell as it was computed, or smoothed for the eye. */

import { colorIndex, palette } from "./colors.js";

/**
 * @typedef {object} OverlayStyle
 * @property {number} limit logits that get the full colour
 * @property {number} opacity share of colour at the limit
 * @property {number} threshold logits below which nothing is drawn
 * @property {string} colors name of a colour map
 * @property {boolean} alone without an image under it: opaque colours instead of transparent ones
 */

const LONGEST_SMOOTH = 384;

/**
 * Draw a map.
 * @param {Float64Array} values
 * @param {[number, number]} grid
 * @param {OverlayStyle} style
 * @param {boolean} smooth
 */
export function drawOverlay(values, grid, style, smooth) {
  const size = smooth ? smoothSize(grid) : grid;
  const shown = smooth ? enlarge(values, grid, size) : values;
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = size;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(canvas.width, canvas.height);
  paintValues(image.data, shown, style);
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Write the colours of values as R, G, B and opacity.
 * @param {Uint8ClampedArray} data
 * @param {ArrayLike<number>} values
 * @param {OverlayStyle} style
 */
export function paintValues(data, values, { limit, opacity, threshold, colors, alone }) {
  const table = palette(colors);
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    if (Math.abs(value) < threshold) continue;
    const strength = Math.min(Math.abs(value) / limit, 1);
    const at = alone ? colorIndex(value, limit) : colorIndex(Math.sign(value), 1);
    data[4 * i] = table[at];
    data[4 * i + 1] = table[at + 1];
    data[4 * i + 2] = table[at + 2];
    data[4 * i + 3] = alone ? 255 : 255 * opacity * strength;
  }
}

/**
 * Enlarge a map bilinearly, cell centres in place.
 * @param {Float64Array} values
 * @param {[number, number]} grid
 * @param {[number, number]} size
 */
export function enlarge(values, [rows, columns], [height, width]) {
  const across = weighAxis(columns, width);
  const down = weighAxis(rows, height);
  const wide = new Float64Array(rows * width);
  for (let row = 0; row < rows; row += 1) {
    for (let x = 0; x < width; x += 1) {
      const [first, second, share] = across[x];
      const start = row * columns;
      wide[row * width + x] = (1 - share) * values[start + first] + share * values[start + second];
    }
  }
  const large = new Float64Array(height * width);
  for (let y = 0; y < height; y += 1) {
    const [first, second, share] = down[y];
    for (let x = 0; x < width; x += 1) {
      large[y * width + x] = (1 - share) * wide[first * width + x] + share * wide[second * width + x];
    }
  }
  return large;
}

/**
 * @param {number} cells
 * @param {number} pixels
 * @returns {[number, number, number][]} the two cells that a pixel lies between, and the share of the second
 */
function weighAxis(cells, pixels) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

/** @param {[number, number]} grid @returns {[number, number]} */
function smoothSize([rows, columns]) {
  const times = Math.max(1, Math.floor(LONGEST_SMOOTH / Math.max(rows, columns)));
  return [rows * times, columns * times];
}
