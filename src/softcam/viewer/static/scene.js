/** What is drawn on the stages. */

import { endColor } from "./colors.js";
import { cellRectangle, fieldRectangle, readField, toOriginal, viewRectangle } from "./geometry.js";
import { drawOverlay } from "./overlay.js";
import { showThrough } from "./pixels.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./stage.js").Stage} Stage */

/**
 * Draw the image with the evidence and everything that is marked on it.
 * @param {Stage} stage
 * @param {Session} session
 */
export function drawScene(stage, session) {
  const { explanation, view } = session;
  if (!explanation || !view) return;
  stage.clear(explanation);
  const bare = isBare(session);
  drawGround(stage, session, bare);
  if (!session.state.hidden || bare) drawMap(stage, session, view.values, explanation.grid, bare);
  drawView(stage, explanation);
  drawRegions(stage, session);
  drawCell(stage, session);
}

/**
 * Draw the image with another method's map, scaled to its own largest value.
 * @param {Stage} stage
 * @param {Session} session
 */
export function drawPeer(stage, session) {
  const { explanation, state } = session;
  const result = state.peer?.result;
  if (!explanation) return;
  stage.clear(explanation);
  const bare = isBare(session);
  drawGround(stage, session, bare);
  if (!result) return;
  const values = session.keep("peer", [result], () => Float64Array.from(result.map.flat()));
  const limit = values.reduce((top, value) => Math.max(top, Math.abs(value)), 0) || 1;
  if (!state.hidden || bare) drawMap(stage, session, values, result.grid, bare, limit);
  drawView(stage, explanation);
  if (state.cell) drawCell(stage, session);
}

/** Whether maps stand alone, without an image under them. @param {Session} session */
export function isBare({ state, explanation }) {
  return state.alone || !explanation?.preview;
}

/**
 * How maps are drawn now.
 * @param {Session} session
 * @param {boolean} bare
 * @param {number} [own] a limit other than that of the page
 * @returns {import("./overlay.js").OverlayStyle}
 */
export function readStyle({ state }, bare, own) {
  const limit = own ?? state.limit ?? 1;
  return { limit, opacity: state.opacity, threshold: state.threshold * limit, colors: state.colors, alone: bare };
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {boolean} bare
 */
function drawGround(stage, session, bare) {
  const { item } = session.state;
  const whole = { x: 0, y: 0, width: stage.image.width, height: stage.image.height };
  if (bare) stage.fillRectangle(whole, "rgb(128 128 128 / 25%)");
  else if (item.picture) stage.drawPicture(showThrough(item.picture, item.window), whole);
  else if (item.thumb) stage.drawPicture(item.thumb, whole, false);
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {Float64Array} values
 * @param {[number, number]} grid
 * @param {boolean} bare
 * @param {number} [own]
 */
function drawMap(stage, session, values, grid, bare, own) {
  const { state, explanation } = session;
  const style = readStyle(session, bare, own);
  const overlay = session.keep(own ? "peer-overlay" : "overlay", [values, JSON.stringify(style), state.smooth], () =>
    drawOverlay(values, grid, style, state.smooth),
  );
  const { geometry } = /** @type {any} */ (explanation);
  const start = toOriginal(geometry, { x: 0, y: 0 });
  const end = toOriginal(geometry, { x: geometry.input_width, y: geometry.input_height });
  const whole = { ...start, width: end.x - start.x, height: end.y - start.y };
  stage.clipped(viewRectangle(geometry), () => stage.drawPicture(overlay, whole, !state.smooth));
}

/** Dim what the network does not see. @param {Stage} stage @param {any} explanation */
function drawView(stage, { geometry, width, height }) {
  const view = viewRectangle(geometry);
  if (view.width > width - 0.5 && view.height > height - 0.5) return;
  const shade = "rgb(20 22 26 / 45%)";
  const right = view.x + view.width;
  const bottom = view.y + view.height;
  stage.fillRectangle({ x: 0, y: 0, width, height: view.y }, shade);
  stage.fillRectangle({ x: 0, y: bottom, width, height: height - bottom }, shade);
  stage.fillRectangle({ x: 0, y: view.y, width: view.x, height: view.height }, shade);
  stage.fillRectangle({ x: right, y: view.y, width: width - right, height: view.height }, shade);
}

/** @param {Stage} stage @param {Session} session */
function drawRegions(stage, session) {
  const { region } = session.state;
  const { explanation } = session;
  if (!region || !explanation) return;
  const { geometry, grid } = explanation;
  const place = (/** @type {number} */ row, /** @type {number} */ column) => cellRectangle(geometry, grid, row, column);
  if (region.kind === "rectangle") {
    stage.outline(stage.linePath(cornersOf(region)), { width: 2 });
  } else if (region.kind === "lasso") {
    stage.outline(stage.linePath(region.points), { width: 2 });
  } else {
    const color = session.regions[region.number]?.supports === false ? "#cfe4ff" : "#fff";
    stage.outline(stage.cellsPath(region.cells, grid, place), { width: 2, color });
    stage.label(String(region.number + 1), centreOf(region.cells.map((cell) => place(...split(cell, grid)))));
  }
}

/** @param {Stage} stage @param {Session} session */
function drawCell(stage, session) {
  const { cell, colors } = session.state;
  const { explanation, view } = session;
  if (!cell || !explanation || !view) return;
  const { geometry, grid } = explanation;
  const field = readField(session.modelInfo);
  if (field) {
    const seen = fieldRectangle(geometry, grid, cell.row, cell.column, field);
    stage.outline(stage.rectanglePath(seen), { dash: [6, 5], width: 1.5 });
  }
  const value = view.values[cell.row * grid[1] + cell.column];
  const rectangle = cellRectangle(geometry, grid, cell.row, cell.column);
  stage.outline(stage.rectanglePath(rectangle), { width: 3, color: "#fff" });
  stage.outline(stage.rectanglePath(rectangle), { width: 1, color: endColor(colors, value) });
}

/** @param {{from: import("./geometry.js").Point, to: import("./geometry.js").Point}} rectangle */
function cornersOf({ from, to }) {
  return [from, { x: to.x, y: from.y }, to, { x: from.x, y: to.y }];
}

/** @param {number} cell @param {[number, number]} grid @returns {[number, number]} */
function split(cell, [, columns]) {
  return [Math.floor(cell / columns), cell % columns];
}

/** @param {import("./geometry.js").Rectangle[]} rectangles */
function centreOf(rectangles) {
  const sum = rectangles.reduce(
    (total, { x, y, width, height }) => ({ x: total.x + x + width / 2, y: total.y + y + height / 2 }),
    { x: 0, y: 0 },
  );
  return { x: sum.x / rectangles.length, y: sum.y / rectangles.length };
}
