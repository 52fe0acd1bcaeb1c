/** One explanation as the page works with it: the response, and its maps as numbers. */

import { differenceMap, findTemperature, meanMaps, weighMaps } from "./accounting.js";

/** @typedef {import("./geometry.js").Geometry} Geometry */
/**
 * @typedef {object} Explanation
 * @property {any} record the response as it came, without its picture
 * @property {{depth: number, blob: Blob}|null} preview the picture, encoded
 * @property {string[]} classes
 * @property {boolean} independent whether classes exclude one another not
 * @property {[number, number]} grid
 * @property {[number, number]} input height and width of the network's input in pixels
 * @property {Geometry} geometry
 * @property {Float32Array} maps
 * @property {Float32Array} logits
 * @property {Float32Array} probabilities
 * @property {number|null} temperature what logits are divided by for the probabilities, where the response tells
 * @property {number} width of the original in pixels
 * @property {number} height of the original in pixels
 */
/** @typedef {{target: number|"predicted", against: number|"rival"|"none"}} Choice */
/** @typedef {{target: number, against: number|null}} Contrast */

/**
 * @param {any} response
 * @returns {Explanation}
 */
export function readExplanation(response) {
  const { geometry, preview } = response;
  const record = { ...response, preview: null };
  return {
    record,
    preview: preview && { depth: preview.depth, blob: readBlob(preview.png) },
    classes: record.classes,
    independent: record.multi_label || record.classes.length === 1,
    grid: record.grid,
    input: [geometry.input_height, geometry.input_width],
    geometry,
    maps: Float32Array.from(record.maps.flat(2)),
    logits: Float32Array.from(record.logits),
    probabilities: Float32Array.from(record.probabilities),
    temperature: record.temperature ?? null,
    width: geometry.original_width,
    height: geometry.original_height,
  };
}

/** Keep an image as bytes, which a browser may keep on disk. @param {string} png in base64 */
function readBlob(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

/**
 * Return what logits are divided by for the probabilities: as the response or the model tells, or as the numbers do.
 * @param {Explanation} explanation
 * @param {any} model model info, or null
 * @returns {number}
 */
export function readTemperature({ temperature, logits, probabilities, independent }, model) {
  return temperature ?? model?.temperature ?? findTemperature(logits, probabilities, independent);
}

/**
 * Return the index of the strongest class other than one.
 * @param {Explanation} explanation
 * @param {number} target
 */
export function findRival({ logits }, target) {
  /** @type {number|null} */
  let rival = null;
  for (let k = 0; k < logits.length; k += 1) {
    if (k !== target && (rival === null || logits[k] > logits[rival])) rival = k;
  }
  return rival;
}

/**
 * Return the index of the class that is explained: the reported one; of several labels the most probable one, and of all
 * where none is reported.
 * @param {Explanation} explanation
 */
export function findPredicted({ record, logits, classes, independent }) {
  const names = independent ? (record.predicted ?? "").split(";") : [record.predicted];
  const reported = classes.flatMap((name, k) => (names.includes(name) ? [k] : []));
  const among = reported.length > 0 ? reported : Array.from(classes.keys());
  return among.reduce((best, k) => (logits[k] > logits[best] ? k : best));
}

/**
 * Return the classes that a choice means for one image.
 * @param {Explanation} explanation
 * @param {Choice} choice
 * @returns {Contrast}
 */
export function resolveChoice(explanation, choice) {
  const last = explanation.classes.length - 1;
  const target = choice.target === "predicted" ? findPredicted(explanation) : Math.min(choice.target, last);
  let against = null;
  if (choice.against === "rival") against = explanation.independent ? null : findRival(explanation, target);
  else if (choice.against !== "none") against = Math.min(choice.against, last);
  return { target, against: against === target ? null : against };
}

/**
 * Return everything that a weighing of the evidence and a choice of classes decide.
 * @param {Explanation} explanation
 * @param {Choice} choice
 * @param {{positive: number, negative: number}} weights
 */
export function deriveView(explanation, choice, weights) {
  const contrast = resolveChoice(explanation, choice);
  const count = explanation.classes.length;
  const weighed = weights.positive !== 1 || weights.negative !== 1;
  const maps = weighed ? weighMaps(explanation.maps, weights.positive, weights.negative) : explanation.maps;
  return {
    ...contrast,
    weighed,
    maps,
    logits: meanMaps(maps, count),
    values: differenceMap(maps, count, contrast.target, contrast.against),
  };
}

/** @typedef {ReturnType<typeof deriveView>} View */

/**
 * Return what the shown map is called.
 * @param {Explanation} explanation
 * @param {Contrast} contrast
 */
export function nameContrast({ classes }, { target, against }) {
  return against === null ? classes[target] : `${classes[target]} − ${classes[against]}`;
}

/**
 * Return a colour limit for explanations: the 99.5 % quantile of the shown evidence, rounded up to two digits.
 * @param {Explanation[]} explanations
 * @param {Choice} choice
 */
export function chooseLimit(explanations, choice) {
  const shown = explanations.map((explanation) => {
    const { target, against } = resolveChoice(explanation, choice);
    return Array.from(differenceMap(explanation.maps, explanation.classes.length, target, against), Math.abs);
  });
  const sorted = shown.flat().sort((a, b) => a - b);
  const quantile = sorted[Math.round(0.995 * (sorted.length - 1))];
  return roundUp(quantile || sorted[sorted.length - 1] || 1);
}

/** @param {number} value */
function roundUp(value) {
  const step = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.ceil(value / step - 1e-9) * step).toPrecision(2));
}
