/** What the page shows now, and what follows from it. */

import { contributions, coverPolygon, coverRectangle, probabilities, subtract } from "./accounting.js";
import { chooseLimit, deriveView, readTemperature } from "./explanation.js";
import { toInput } from "./geometry.js";
import { findRegions } from "./regions.js";

/** @typedef {import("./geometry.js").Point} Point */
/** @typedef {import("./explanation.js").Explanation} Explanation */
/**
 * A region that is measured: corners or a line in pixels of the original, or whole cells.
 * @typedef {{kind: "rectangle", from: Point, to: Point}|{kind: "lasso", points: Point[]}
 *   |{kind: "cells", cells: number[], number: number}} Region
 */

export const MOST_REGIONS = 12;

const FIRST = {
  /** @type {any[]} */ items: [],
  /** @type {any} */ item: null,
  /** @type {any[]} */ models: [],
  model: "",
  online: false,
  /** @type {import("./explanation.js").Choice} */ choice: { target: "predicted", against: "rival" },
  weights: { positive: 1, negative: 1 },
  opacity: 0.7,
  threshold: 0,
  /** @type {number|null} */ limit: null,
  colors: "blue-orange",
  smooth: false,
  alone: false,
  hidden: false,
  tool: "inspect",
  /** @type {{row: number, column: number}|null} */ cell: null,
  /** where a rectangle of cells begins @type {{row: number, column: number}|null} */ anchor: null,
  /** @type {Region|null} */ region: null,
  share: 0.5,
  allClasses: false,
  /** @type {any} */ peer: null,
};

/** @typedef {typeof FIRST} State */

export class Session {
  constructor() {
    /** @type {State} */
    this.state = { ...FIRST };
    /** @type {((changed: Set<string>) => void)[]} */
    this.listeners = [];
    /** @type {Set<string>} */
    this.changed = new Set();
    this.waiting = false;
    /** @type {Map<string, {inputs: any[], value: any}>} */
    this.kept = new Map();
  }

  /** Change the state; the page is drawn once in the next frame. @param {Partial<State>} patch */
  update(patch) {
    Object.assign(this.state, patch);
    for (const name of Object.keys(patch)) this.changed.add(name);
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.flush());
  }

  /** Tell all listeners what changed. */
  flush() {
    const changed = this.changed;
    this.changed = new Set();
    this.waiting = false;
    performance.mark("softcam:frame-start");
    for (const listener of this.listeners) listener(changed);
    performance.measure("softcam:frame", "softcam:frame-start");
  }

  /** @param {(changed: Set<string>) => void} listener */
  subscribe(listener) {
    this.listeners.push(listener);
  }

  /** @returns {Explanation|null} */
  get explanation() {
    return this.state.item?.shown ?? null;
  }

  /** Facts of the model that is shown, or null where they are unknown. */
  get modelInfo() {
    const name = this.explanation?.record.model.name ?? this.state.model;
    return this.state.models.find((model) => model.name === name) ?? null;
  }

  /** What logits are divided by for the probabilities. */
  get temperature() {
    return this.explanation ? readTemperature(this.explanation, this.modelInfo) : 1;
  }

  /** @returns {import("./explanation.js").View|null} */
  get view() {
    const { choice, weights } = this.state;
    const explanation = this.explanation;
    return this.keep("view", [explanation, choice, weights], () =>
      explanation && deriveView(explanation, choice, weights),
    );
  }

  /** The measured region: its cells, what it adds to each class, and the prediction without it. */
  get measurement() {
    const { region } = this.state;
    const [explanation, view] = [this.explanation, this.view];
    return this.keep("measurement", [explanation, view, region], () =>
      explanation && view && region ? measure(explanation, view, region) : null,
    );
  }

  /** The prediction that is left of it: without the muted evidence and without the region. */
  get remaining() {
    const [explanation, view, measurement] = [this.explanation, this.view, this.measurement];
    if (!explanation || !view || (!measurement && !view.weighed)) return null;
    const logits = measurement ? measurement.without : view.logits;
    return { logits, probabilities: probabilities(logits, explanation.independent, this.temperature) };
  }

  /** @returns {import("./regions.js").Region[]} */
  get regions() {
    const { share } = this.state;
    const [explanation, view] = [this.explanation, this.view];
    return this.keep("regions", [view, share], () =>
      explanation && view ? findRegions(view.values, explanation.grid, share, MOST_REGIONS) : [],
    );
  }

  /** Choose the scale once: from all that came with the page, or from the first image that is looked at. */
  beginLimit() {
    const { limit, item, online } = this.state;
    if (limit !== null || (online && !item?.shown && item?.status !== "failed")) return;
    if (online && item?.shown) this.update({ limit: chooseLimit([item.shown], this.state.choice) });
    else this.fitLimit();
  }

  /** Choose the scale from all images that are here. */
  fitLimit() {
    const shown = this.state.items.map((item) => item.shown).filter(Boolean);
    if (shown.length > 0) this.update({ limit: chooseLimit(shown, this.state.choice) });
  }

  /**
   * @template T
   * @param {string} name
   * @param {any[]} inputs
   * @param {() => T} compute
   * @returns {T}
   */
  keep(name, inputs, compute) {
    const found = this.kept.get(name);
    if (found && found.inputs.every((input, index) => input === inputs[index])) return found.value;
    const value = compute();
    this.kept.set(name, { inputs, value });
    return value;
  }
}

/**
 * @param {Explanation} explanation
 * @param {import("./explanation.js").View} view
 * @param {Region} region
 */
function measure(explanation, view, region) {
  performance.mark("softcam:measure-start");
  const coverage = cover(explanation, region);
  const added = contributions(view.maps, explanation.classes.length, coverage);
  const without = subtract(view.logits, added);
  const value = added[view.target] - (view.against === null ? 0 : added[view.against]);
  const result = { coverage, added, without, value, cells: coverage.shares.reduce((sum, share) => sum + share, 0) };
  performance.measure("softcam:measure", "softcam:measure-start");
  return result;
}

/**
 * @param {Explanation} explanation
 * @param {Region} region
 */
function cover(explanation, region) {
  const { geometry, grid, input } = explanation;
  if (region.kind === "cells") return { cells: region.cells, shares: region.cells.map(() => 1) };
  if (region.kind === "lasso") {
    return coverPolygon(region.points.map((point) => toInput(geometry, point)), grid, input);
  }
  const [a, b] = [toInput(geometry, region.from), toInput(geometry, region.to)];
  const rectangle = {
    x: Math.min(a.x, b.x),
    y: Math.min(a.y, b.y),
    width: Math.abs(a.x - b.x),
    height: Math.abs(a.y - b.y),
  };
  return coverRectangle(rectangle, grid, input);
}
