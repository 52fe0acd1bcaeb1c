/**
 * Signed evidence as colour: near-white nothing, one hue for, another against; the same construction and, for the first
 * map, the same bytes as `softcam.imaging.colormap`.
 */

/** @typedef {[number, number, number]} Triple */
/** @typedef {{name: string, title: string, against: Triple, support: Triple}} ColorMap */

const HALF = 255;
const NEUTRAL = /** @type {Triple} */ ([0.97, 0, 0]);

/** Anchors as lightness, chroma and hue in degrees in OKLab's polar form. @type {ColorMap[]} */
export const COLOR_MAPS = [
  { name: "blue-orange", title: "Blue – orange", against: [0.6, 0.16, 250], support: [0.6, 0.16, 45] },
  { name: "purple-green", title: "Purple – green", against: [0.6, 0.16, 315], support: [0.6, 0.16, 148] },
];

const LAB_TO_CONE_ROOTS = [
  [1, 0.3963377774, 0.2158037573],
  [1, -0.1055613458, -0.0638541728],
  [1, -0.0894841775, -1.291485548],
];
const CONES_TO_LINEAR_RGB = [
  [4.0767416621, -3.3077115913, 0.2309699292],
  [-1.2684380046, 2.6097574011, -0.3413193965],
  [-0.0041960863, -0.7034186147, 1.707614701],
];

/** @type {Map<string, Uint8Array>} */
const palettes = new Map();

/**
 * Return the 511 colours of a map as bytes R, G, B, from the most negative to the most positive.
 * @param {string} name
 */
export function palette(name) {
  let colors = palettes.get(name);
  if (!colors) {
    colors = buildPalette(COLOR_MAPS.find((map) => map.name === name) ?? COLOR_MAPS[0]);
    palettes.set(name, colors);
  }
  return colors;
}

/**
 * Return the place of a value's colour in a palette, in bytes.
 * @param {number} value
 * @param {number} limit the value that gets the full colour, positive
 */
export function colorIndex(value, limit) {
  const strength = Math.min(Math.max(value / limit, -1), 1);
  return 3 * (roundEven(strength * HALF) + HALF);
}

/**
 * Return the end colour of a sign as CSS.
 * @param {string} name
 * @param {number} sign
 */
export function endColor(name, sign) {
  const colors = palette(name);
  const at = sign < 0 ? 0 : colors.length - 3;
  return `rgb(${colors[at]} ${colors[at + 1]} ${colors[at + 2]})`;
}

/** @param {ColorMap} map */
function buildPalette(map) {
  const [neutral, against, support] = [NEUTRAL, map.against, map.support].map(polarToLab);
  const colors = new Uint8Array(3 * (2 * HALF + 1));
  for (let index = -HALF; index <= HALF; index += 1) {
    const end = index < 0 ? against : support;
    const share = Math.abs(index) / HALF;
    const lab = neutral.map((value, axis) => value + share * (end[axis] - value));
    colors.set(labToBytes(lab), 3 * (index + HALF));
  }
  return colors;
}

/** @param {Triple} polar */
function polarToLab([lightness, chroma, hue]) {
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

/** @param {number[]} lab */
function labToBytes(lab) {
  const cones = multiply(LAB_TO_CONE_ROOTS, lab).map((root) => root ** 3);
  return multiply(CONES_TO_LINEAR_RGB, cones).map((linear) => {
    const kept = Math.min(Math.max(linear, 0), 1);
    const encoded = kept <= 0.0031308 ? 12.92 * kept : 1.055 * kept ** (1 / 2.4) - 0.055;
    return roundEven(255 * encoded);
  });
}

/**
 * @param {number[][]} matrix
 * @param {number[]} vector
 */
function multiply(matrix, vector) {
  return matrix.map((row) => row.reduce((sum, value, index) => sum + value * vector[index], 0));
}

/** Round halves to the even number, as numpy does. @param {number} value */
function roundEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
