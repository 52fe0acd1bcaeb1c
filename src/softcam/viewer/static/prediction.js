/** The numbers of a prediction, and of what is left of it without the removed evidence. */

import { meanMaps } from "./accounting.js";
import { element, make, setText } from "./elements.js";
import { formatError, formatLogit, formatPercent, formatSigned } from "./numbers.js";

/** @typedef {import("./session.js").Session} Session */

const FEW = 6;

/** @param {Session} session */
export function drawPrediction(session) {
  const { explanation, view } = session;
  element("classes").hidden = !explanation;
  element("vacant-hint").hidden = Boolean(explanation);
  if (!explanation || !view) return clear();
  const shown = listClasses(session);
  const before = explanation.probabilities;
  drawVerdict(explanation, view, before);
  drawWarnings(explanation);
  drawOdds(session);
  drawRows(session, shown, before);
  drawMore(session, shown.length);
  drawIdentity(explanation, view);
}

function clear() {
  for (const id of ["verdict-class", "verdict-probability", "identity", "log-odds"]) setText(element(id), "");
  element("more-classes").hidden = true;
  element("warnings").hidden = true;
}

/**
 * @param {import("./explanation.js").Explanation} explanation
 * @param {import("./explanation.js").View} view
 * @param {Float32Array} before
 */
function drawVerdict({ record, classes }, view, before) {
  const index = classes.indexOf(record.predicted);
  setText(element("verdict-class"), record.predicted || "none reaches its threshold");
  setText(element("verdict-probability"), index < 0 ? "" : formatPercent(before[index]));
}

/**
 * In what the image differs from those that the model knows.
 * @param {import("./explanation.js").Explanation} explanation
 */
function drawWarnings({ record }) {
  const list = element("warnings");
  const texts = record.warnings ?? [];
  list.hidden = texts.length === 0;
  if (list.dataset.drawn === JSON.stringify(texts)) return;
  list.dataset.drawn = JSON.stringify(texts);
  list.replaceChildren(...texts.map((/** @type {string} */ text) => make("li", {}, [text])));
}

/** The log-odds that the difference of two maps averages to. @param {Session} session */
function drawOdds(session) {
  const { explanation, view } = session;
  const line = element("log-odds");
  if (!explanation || !view) return;
  const { classes, logits, record } = explanation;
  const pair = oddsPair(explanation, view);
  const sets = record.prediction_set ? `Prediction set: ${record.prediction_set.join(", ") || "empty"}` : "";
  const odds = pair && logits[pair[0]] - (pair[1] === null ? 0 : logits[pair[1]]);
  const name = pair && classes[pair[0]] + (pair[1] === null ? "" : ` over ${classes[pair[1]]}`);
  const texts = [odds === null ? "" : describeOdds(`${name}`, odds, session.temperature), sets];
  setText(line, texts.filter(Boolean).join(". "));
  line.hidden = !line.textContent;
}

/**
 * @param {string} name
 * @param {number} odds
 * @param {number} temperature
 */
function describeOdds(name, odds, temperature) {
  if (temperature === 1) return `Log-odds of ${name}: ${formatSigned(odds)}`;
  const calibrated = `${formatSigned(odds)} / ${temperature.toFixed(3)} = ${formatSigned(odds / temperature)}`;
  return `Calibrated log-odds of ${name}: ${calibrated}`;
}

/**
 * @param {import("./explanation.js").Explanation} explanation
 * @param {import("./explanation.js").View} view
 * @returns {[number, number|null]|null} the class, and that over which
 */
function oddsPair({ classes, independent }, { target, against }) {
  if (classes.length === 1) return [0, null];
  if (independent) return null;
  if (against !== null) return [target, against];
  return classes.length === 2 ? [target, 1 - target] : null;
}

/** The classes to list: the strongest, and always those that are shown on the map. @param {Session} session */
function listClasses(session) {
  const { explanation, view } = session;
  if (!explanation || !view) return [];
  return session.keep("listed", [explanation, session.state.allClasses, view.target, view.against], () => {
    const order = Array.from(explanation.logits.keys()).sort((a, b) => explanation.logits[b] - explanation.logits[a]);
    if (session.state.allClasses) return order;
    const kept = new Set([...order.slice(0, FEW), view.target, ...(view.against === null ? [] : [view.against])]);
    return order.filter((k) => kept.has(k));
  });
}

/**
 * @param {Session} session
 * @param {number[]} shown
 * @param {Float32Array} before
 */
function drawRows(session, shown, before) {
  const { explanation, view, measurement, remaining } = session;
  if (!explanation || !view) return;
  const body = element("class-rows");
  element("region-column").hidden = !measurement;
  while (body.rows.length > shown.length) body.deleteRow(-1);
  while (body.rows.length < shown.length) body.append(makeRow());
  shown.forEach((k, index) => {
    const row = body.rows[index];
    const [name, chance, logit, added] = row.cells;
    setText(name.firstElementChild, explanation.classes[k]);
    row.classList.toggle("chosen", k === view.target || k === view.against);
    fillPair(chance, formatPercent(before[k]), remaining && formatPercent(remaining.probabilities[k]));
    chance.style.setProperty("--share", String(before[k]));
    const { thresholds } = explanation.record;
    const limit = thresholds?.[explanation.classes[k]] ?? (explanation.independent ? 0.5 : null);
    chance.title = limit === null ? "" : `reported from ${formatPercent(limit)}`;
    const spread = explanation.record.disagreement?.logits[k];
    const told = formatLogit(explanation.logits[k]) + (spread === undefined ? "" : ` ± ${formatLogit(spread)}`);
    logit.title = spread === undefined ? "" : "± standard deviation between the members of the ensemble";
    fillPair(logit, told, remaining && formatLogit(remaining.logits[k]));
    added.hidden = !measurement;
    setText(added, measurement ? formatSigned(measurement.added[k]) : "");
  });
}

function makeRow() {
  const pair = () => make("td", {}, [make("span", { class: "now" }), make("span", { class: "then" })]);
  return make("tr", {}, [make("th", { scope: "row" }, [make("span")]), pair(), pair(), make("td")]);
}

/**
 * @param {HTMLElement} cell
 * @param {string} now
 * @param {string|null} then
 */
function fillPair(cell, now, then) {
  const [first, second] = cell.children;
  setText(first, now);
  setText(second, then === null ? "" : `→ ${then}`);
}

/** @param {Session} session @param {number} count */
function drawMore({ explanation, state }, count) {
  const button = element("more-classes");
  const all = explanation?.classes.length ?? 0;
  button.hidden = all <= FEW || (all === count && !state.allClasses);
  setText(button, state.allClasses ? "Show fewer classes" : `Show all ${all} classes`);
}

/**
 * State the identity, recomputed here in float64.
 * @param {import("./explanation.js").Explanation} explanation
 * @param {import("./explanation.js").View} view
 */
function drawIdentity({ record, maps, logits, classes }, { target }) {
  const mean = meanMaps(maps, classes.length)[target];
  const sum = `mean of the map ${formatLogit(mean, 4)} = logit ${formatLogit(logits[target], 4)}`;
  setText(element("identity"), `${classes[target]}: ${sum}, error ${formatError(record.sum_error)}`);
}
