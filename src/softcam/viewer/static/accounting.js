/**
 * The arithmetic of evidence, in float64: the mean of a class's map is its logit, so what a region adds to it, and the
 * logit without the region, are sums of cells.
 *
 * Maps are flat arrays, one class after the other, row by row.
 */

/** @typedef {import("./geometry.js").Rectangle} Rectangle */
/** @typedef {import("./geometry.js").Point} Point */
/**
 * A region as shares of cells: `shares[i]` in [0, 1] belongs to the cell `cells[i]`.
 * @typedef {{cells: number[], shares: number[]}} Coverage
 */

/**
 * Return the mean of each class's map.
 * @param {ArrayLike<number>} maps
 * @param {number} classes
 */
export function meanMaps(maps, classes) {
  const size = maps.length / classes;
  const means = new Float64Array(classes);
  for (let k = 0; k < classes; k += 1) {
    let sum = 0;
    for (let i = k * size; i < (k + 1) * size; i += 1) sum += maps[i];
    means[k] = sum / size;
  }
  return means;
}

/**
 * Return the maps with the evidence for and against each class weighed.
 * @param {ArrayLike<number>} maps
 * @param {number} positive weight of evidence for, 1 keeps it
 * @param {number} negative weight of evidence against, 1 keeps it
 */
export function weighMaps(maps, positive, negative) {
  const weighed = new Float64Array(maps.length);
  for (let i = 0; i < maps.length; i += 1) weighed[i] = maps[i] * (maps[i] > 0 ? positive : negative);
  return weighed;
}

/**
 * Return what a region adds to each logit.
 * @param {ArrayLike<number>} maps
 * @param {number} classes
 * @param {Coverage} coverage
 */
export function contributions(maps, classes, { cells, shares }) {
  const size = maps.length / classes;
  const added = new Float64Array(classes);
  for (let k = 0; k < classes; k += 1) {
    const start = k * size;
    let sum = 0;
    for (let i = 0; i < cells.length; i += 1) sum += shares[i] * maps[start + cells[i]];
    added[k] = sum / size;
  }
  return added;
}

/**
 * Return each value less what was removed from it.
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} removed
 */
export function subtract(values, removed) {
  return Float64Array.from(values, (value, index) => value - removed[index]);
}

/**
 * Return the probabilities of logits: sigmoid for independent classes and for an only class, else softmax.
 * @param {ArrayLike<number>} raw logits
 * @param {boolean} independent
 * @param {number} temperature what a calibrated model divides its logits by
 */
export function probabilities(raw, independent, temperature) {
  const logits = Float64Array.from(raw, (logit) => logit / temperature);
  if (independent || logits.length === 1) return Float64Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  let highest = -Infinity;
  for (let k = 0; k < logits.length; k += 1) highest = Math.max(highest, logits[k]);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/**
 * Return what logits were divided by for these probabilities, to their precision; 1 where they do not tell.
 * @param {ArrayLike<number>} logits
 * @param {ArrayLike<number>} chances
 * @param {boolean} independent
 */
export function findTemperature(logits, chances, independent) {
  const order = Array.from(logits, (_, k) => k).sort((a, b) => logits[a] - logits[b]);
  const [low, high] = [order[0], order[order.length - 1]];
  const far = Math.abs(logits[low]) > Math.abs(logits[high]) ? low : high;
  const single = independent || logits.length === 1;
  const raw = single ? logits[far] : logits[high] - logits[low];
  const scaled = single
    ? Math.log(chances[far] / (1 - chances[far]))
    : Math.log(chances[high] / chances[low]);
  const found = raw / scaled;
  return Number.isFinite(found) && found > 0 && Math.abs(found - 1) > 1e-3 ? found : 1;
}

/**
 * Return the map of one class, or of one class rather than another; its mean is the logit, or the log-odds.
 * @param {ArrayLike<number>} maps
 * @param {number} classes
 * @param {number} target
 * @param {number|null} against
 */
export function differenceMap(maps, classes, target, against) {
  const size = maps.length / classes;
  const values = new Float64Array(size);
  for (let i = 0; i < size; i += 1) {
    values[i] = maps[target * size + i] - (against === null ? 0 : maps[against * size + i]);
  }
  return values;
}

/**
 * Return the exact share of each cell under a rectangle.
 * @param {Rectangle} rectangle in pixels of the network's input
 * @param {[number, number]} grid
 * @param {[number, number]} input height and width in pixels
 * @returns {Coverage}
 */
export function coverRectangle(rectangle, [rows, columns], [height, width]) {
  const vertical = overlap((rectangle.y * rows) / height, ((rectangle.y + rectangle.height) * rows) / height, rows);
  const horizontal = overlap(
    (rectangle.x * columns) / width,
    ((rectangle.x + rectangle.width) * columns) / width,
    columns,
  );
  /** @type {Coverage} */
  const coverage = { cells: [], shares: [] };
  for (const [row, tall] of vertical) {
    for (const [column, wide] of horizontal) {
      coverage.cells.push(row * columns + column);
      coverage.shares.push(tall * wide);
    }
  }
  return coverage;
}

/**
 * Return the share of each cell that is covered by the pixels whose centres lie inside a closed line (even-odd).
 * @param {Point[]} polygon in pixels of the network's input
 * @param {[number, number]} grid
 * @param {[number, number]} input height and width in pixels
 * @returns {Coverage}
 */
export function coverPolygon(polygon, [rows, columns], [height, width]) {
  const shares = new Float64Array(rows * columns);
  for (let y = 0; y < height; y += 1) {
    const runs = crossings(polygon, y + 0.5);
    if (runs.length === 0) continue;
    const tall = overlap((y * rows) / height, ((y + 1) * rows) / height, rows);
    for (let i = 0; i + 1 < runs.length; i += 2) {
      const [first, last] = [firstCentre(runs[i], width), firstCentre(runs[i + 1], width)];
      addRun(shares, tall, overlap((first * columns) / width, (last * columns) / width, columns), columns);
    }
  }
  return listCovered(shares);
}

/**
 * Return the cells between two lines, with the share that lies between them.
 * @param {number} start
 * @param {number} end
 * @param {number} count
 * @returns {[number, number][]}
 */
function overlap(start, end, count) {
  const [from, to] = [Math.max(0, start), Math.min(count, end)];
  /** @type {[number, number][]} */
  const found = [];
  for (let cell = Math.floor(from); cell < to; cell += 1) {
    found.push([cell, Math.min(to, cell + 1) - Math.max(from, cell)]);
  }
  return found;
}

/**
 * Return where a polygon crosses a horizontal line, from left to right.
 * @param {Point[]} polygon
 * @param {number} y
 */
function crossings(polygon, y) {
  const found = [];
  for (let i = 0; i < polygon.length; i += 1) {
    const [a, b] = [polygon[i], polygon[(i + 1) % polygon.length]];
    if (a.y > y !== b.y > y) found.push(a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x));
  }
  return found.sort((left, right) => left - right);
}

/**
 * Return the first pixel whose centre lies to the right of a line.
 * @param {number} x
 * @param {number} width
 */
function firstCentre(x, width) {
  return Math.min(Math.max(Math.ceil(x - 0.5), 0), width);
}

/**
 * @param {Float64Array} shares
 * @param {[number, number][]} vertical
 * @param {[number, number][]} horizontal
 * @param {number} columns
 */
function addRun(shares, vertical, horizontal, columns) {
  for (const [row, tall] of vertical) {
    for (const [column, wide] of horizontal) shares[row * columns + column] += tall * wide;
  }
}

/** @param {Float64Array} shares */
function listCovered(shares) {
  /** @type {Coverage} */
  const coverage = { cells: [], shares: [] };
  for (let cell = 0; cell < shares.length; cell += 1) {
    if (shares[cell] > 0) {
      coverage.cells.push(cell);
      coverage.shares.push(shares[cell]);
    }
  }
  return coverage;
}
