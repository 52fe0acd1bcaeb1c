/** The picture under the maps: decoded once, shown through a window of grey values. */

/**
 * @typedef {object} Picture
 * @property {number} width
 * @property {number} height
 * @property {number} top the greatest value: 255 or 65535
 * @property {Uint8Array|Uint16Array} values grey, or R, G, B one after the other
 * @property {1|3} channels
 * @property {HTMLCanvasElement} canvas as it is shown
 * @property {string} drawn which window the canvas shows
 */
/** @typedef {{center: number, width: number}} Window */

/**
 * Decode a preview.
 * @param {{depth: number, blob: Blob}} preview
 * @returns {Promise<Picture>}
 */
export async function decodePicture(preview) {
  const bitmap = await createImageBitmap(preview.blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = contextOf(canvas);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const read = preview.depth === 16 ? readDeep(data) : readFlat(data);
  const size = { width: canvas.width, height: canvas.height };
  return { ...read, ...size, canvas, drawn: preview.depth === 16 ? "" : nameWindow(fullWindow(read)) };
}

/** The window that shows every value. @param {{top: number}} picture @returns {Window} */
export function fullWindow({ top }) {
  return { center: top / 2, width: top };
}

/**
 * Return the picture's canvas as a window shows it.
 * @param {Picture} picture
 * @param {Window} window
 */
export function showThrough(picture, window) {
  const name = nameWindow(window);
  if (picture.drawn === name) return picture.canvas;
  const shades = buildShades(picture.top, window);
  const context = contextOf(picture.canvas);
  const image = context.createImageData(picture.width, picture.height);
  paintShades(image.data, picture, shades);
  context.putImageData(image, 0, 0);
  picture.drawn = name;
  return picture.canvas;
}

/**
 * Return the value of a pixel of the picture, as text.
 * @param {Picture} picture
 * @param {number} x
 * @param {number} y
 */
export function readPixel({ values, channels, width, height }, x, y) {
  const [column, row] = [Math.floor(x), Math.floor(y)];
  if (column < 0 || row < 0 || column >= width || row >= height) return "";
  const at = channels * (row * width + column);
  return Array.from(values.subarray(at, at + channels)).join(", ");
}

/** @param {Uint8ClampedArray} data */
function readDeep(data) {
  const values = new Uint16Array(data.length / 4);
  for (let i = 0; i < values.length; i += 1) values[i] = (data[4 * i] << 8) | data[4 * i + 1];
  return { values, channels: /** @type {1} */ (1), top: 65535 };
}

/** @param {Uint8ClampedArray} data */
function readFlat(data) {
  const count = data.length / 4;
  let grey = true;
  for (let i = 0; grey && i < count; i += 1) grey = data[4 * i] === data[4 * i + 1] && data[4 * i] === data[4 * i + 2];
  const channels = /** @type {1|3} */ (grey ? 1 : 3);
  const values = new Uint8Array(count * channels);
  for (let i = 0; i < count; i += 1) {
    for (let channel = 0; channel < channels; channel += 1) values[i * channels + channel] = data[4 * i + channel];
  }
  return { values, channels, top: 255 };
}

/**
 * Return the shade of every value.
 * @param {number} top
 * @param {Window} window
 */
function buildShades(top, { center, width }) {
  const shades = new Uint8ClampedArray(top + 1);
  const start = center - width / 2;
  for (let value = 0; value <= top; value += 1) shades[value] = (255 * (value - start)) / width;
  return shades;
}

/**
 * @param {Uint8ClampedArray} data
 * @param {Picture} picture
 * @param {Uint8ClampedArray} shades
 */
function paintShades(data, { values, channels }, shades) {
  const second = channels === 3 ? 1 : 0;
  for (let i = 0, at = 0; at < values.length; i += 4, at += channels) {
    data[i] = shades[values[at]];
    data[i + 1] = shades[values[at + second]];
    data[i + 2] = shades[values[at + 2 * second]];
    data[i + 3] = 255;
  }
}

/** @param {Window} window */
function nameWindow({ center, width }) {
  return `${center}/${width}`;
}

/** @param {HTMLCanvasElement} canvas */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}
