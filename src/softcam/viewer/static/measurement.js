/** What a region adds, and the cell under the pointer, in words and numbers. */

import { element, setText } from "./elements.js";
import { nameContrast } from "./explanation.js";
import { cellRectangle, fieldRectangle, readField, toOriginal } from "./geometry.js";
import { formatPercent, formatPixel, formatSigned, formatSpan } from "./numbers.js";
import { readPixel } from "./pixels.js";

/** @typedef {import("./session.js").Session} Session */

const KINDS = { rectangle: "Rectangle", lasso: "Lasso", cells: "Region" };

/** @param {Session} session */
export function drawMeasurement(session) {
  const { measurement, state } = session;
  element("measured").hidden = !measurement;
  element("measured-none").hidden = Boolean(measurement);
  if (!measurement || !state.region) return;
  setText(element("measured-value"), formatSigned(measurement.value));
  element("measured-value").dataset.exact = String(measurement.value);
  setText(element("measured-text"), describeRegion(session));
  setText(element("measured-odds"), describeRemaining(session));
}

/** What a region is and adds, in a sentence. @param {Session} session */
export function describeRegion(session) {
  const { measurement, explanation, view, state } = session;
  if (!measurement || !explanation || !view || !state.region) return "";
  const { region } = state;
  const kind = KINDS[region.kind] + (region.kind === "cells" ? ` ${region.number + 1}` : "");
  const [rows, columns] = explanation.grid;
  const share = (100 * measurement.cells) / (rows * columns);
  const name = nameContrast(explanation, view);
  const size = `${measurement.cells.toFixed(2)} of ${rows * columns} cells (${share.toFixed(1)} %)`;
  return `${kind} of ${size}${measureArea(explanation, measurement.cells)} adds this to ${name}.`;
}

/**
 * The area in square millimetres or centimetres, where the distance of pixels is known.
 * @param {import("./explanation.js").Explanation} explanation
 * @param {number} cells
 */
function measureArea({ record, geometry, grid, input }, cells) {
  if (!record.spacing) return "";
  const pixels = ((cells * input[0]) / grid[0]) * (input[1] / grid[1]) * geometry.scale_x * geometry.scale_y;
  const area = pixels * record.spacing[0] * record.spacing[1];
  return area < 1000 ? `, ${area.toFixed(1)} mm²` : `, ${(area / 100).toFixed(1)} cm²`;
}

/** The prediction without the region, in a sentence. @param {Session} session */
function describeRemaining(session) {
  const { measurement, explanation, view, remaining } = session;
  if (!measurement || !explanation || !view || !remaining) return "";
  const { target, against } = view;
  const left = remaining.logits[target] - (against === null ? 0 : remaining.logits[against]);
  const chance = formatPercent(remaining.probabilities[target]);
  const name = nameContrast(explanation, view);
  return `Without it: ${name} ${formatSigned(left)}, ${explanation.classes[target]} ${chance}.`;
}

/** @param {Session} session */
export function drawReadout(session) {
  const { cell } = session.state;
  const line = element("readout");
  if (!session.explanation) return setText(line, "");
  if (!cell) return setText(line, describeNothing(session));
  line.dataset.cell = `${cell.row},${cell.column}`;
  line.dataset.value = String(readCellValue(session));
  line.dataset.rectangle = JSON.stringify(locateCell(session));
  setText(line, describeCell(session));
}

/** Without a cell: the measured region, which may be drawn far from the panel. @param {Session} session */
function describeNothing(session) {
  const { measurement } = session;
  if (!measurement) return "Point at a cell to read it, or press an arrow key on the image.";
  return `The region adds ${formatSigned(measurement.value)} logits. ${describeRemaining(session)}`;
}

/** A cell's value with its place and what it sees. @param {Session} session */
export function describeCell(session) {
  const { explanation, view, state } = session;
  if (!explanation || !view || !state.cell) return "";
  const { x, y, width, height } = /** @type {any} */ (locateCell(session));
  const { row, column } = state.cell;
  const value = `${nameContrast(explanation, view)} ${formatSigned(readCellValue(session), 4)} logits`;
  const added = `adds ${formatSigned(readCellValue(session) / view.values.length, 5)}`;
  const place = `stands for x ${formatSpan(x, width)}, y ${formatSpan(y, height)} px${describeGrey(session)}`;
  return `Cell row ${row + 1}, column ${column + 1}: ${value} (${added}); ${place}; ${describeField(session)}.`;
}

/** @param {Session} session */
function readCellValue({ explanation, view, state }) {
  if (!explanation || !view || !state.cell) return NaN;
  return view.values[state.cell.row * explanation.grid[1] + state.cell.column];
}

/** @param {Session} session */
function locateCell({ explanation, state }) {
  if (!explanation || !state.cell) return null;
  return cellRectangle(explanation.geometry, explanation.grid, state.cell.row, state.cell.column);
}

/** The image's value at the middle of the cell. @param {Session} session */
function describeGrey({ explanation, state }) {
  const { picture } = state.item;
  if (!picture || !explanation || !state.cell) return "";
  const { geometry, grid, input } = explanation;
  const middle = toOriginal(geometry, {
    x: ((state.cell.column + 0.5) * input[1]) / grid[1],
    y: ((state.cell.row + 0.5) * input[0]) / grid[0],
  });
  const [x, y] = [(middle.x * picture.width) / explanation.width, (middle.y * picture.height) / explanation.height];
  const value = readPixel(picture, x, y);
  return value && ` (${picture.channels === 3 ? "RGB" : "grey"} ${value} at its centre)`;
}

/** @param {Session} session */
function describeField({ explanation, modelInfo, state }) {
  const field = readField(modelInfo);
  if (!field || !explanation || !state.cell) return "how far it sees is not known here";
  if (field.height === null && field.width === null) return "it sees the whole image";
  const { row, column } = state.cell;
  const { width, height } = fieldRectangle(explanation.geometry, explanation.grid, row, column, field);
  const wide = field.width === null ? "the whole width" : `${formatPixel(width)} px`;
  const tall = field.height === null ? "the whole height" : `${formatPixel(height)} px`;
  return `it sees ${wide} × ${tall}`;
}

/** The sentence on how far cells see. @param {Session} session */
export function drawCaveat({ explanation, modelInfo }) {
  const field = readField(modelInfo);
  const line = element("caveat-field");
  if (!field || !explanation) return setText(line, "It sees a larger area, its receptive field.");
  const { map_stride: stride } = modelInfo;
  const whole = (field.height ?? Infinity) >= explanation.input[0] && (field.width ?? Infinity) >= explanation.input[1];
  const size = `${field.width ?? "all"} × ${field.height ?? "all"} px of the network's input`;
  const extent = whole ? "the whole image" : size;
  const place = stride ? ` Its place is ${stride[1]} × ${stride[0]} px.` : "";
  return setText(line, `Here it sees ${extent}, its receptive field (${field.bound ? "bound" : "measured"}).${place}`);
}
