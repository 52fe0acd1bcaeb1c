/** What a pointer does on the stage: read a cell, draw a region, change the window of the image. */

import { cellAt } from "./geometry.js";
import { fullWindow } from "./pixels.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./stage.js").Stage} Stage */

const STEP = 2; // screen pixels between the points of a lasso
const LEAST = 3; // screen pixels from which a press is a drag

/** Whether a press moves the image, rather than draws on it. @param {Session} session @param {any} event */
export function movesImage({ state }, event) {
  if (event.touches) return state.tool === "inspect" || event.touches.length > 1;
  if (event.button === 1) return true;
  return state.tool === "inspect" && event.button === 0 && !event.shiftKey;
}

/**
 * @param {Stage} stage
 * @param {Session} session
 */
export function watchPointer(stage, session) {
  const { canvas } = stage;
  /** @type {any} */
  let drag = null;
  /** @type {Set<number>} */
  const fingers = new Set();
  canvas.addEventListener("pointerdown", (event) => {
    fingers.add(event.pointerId);
    readCell(stage, session, event);
    if (fingers.size > 1) drag = cancelDrag(session, drag);
    else drag = beginDrag(stage, session, event);
    if (drag) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && event.pointerId === drag.pointer) continueDrag(stage, session, drag, event);
    else if (fingers.size < 2) readCell(stage, session, event);
  });
  const end = (/** @type {PointerEvent} */ event) => {
    fingers.delete(event.pointerId);
    if (drag && event.pointerId === drag.pointer) drag = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", (event) => {
    if (!drag && event.pointerType === "mouse") session.update({ cell: null });
  });
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {PointerEvent} event
 */
function readCell(stage, session, event) {
  const { explanation, state } = session;
  if (!explanation) return;
  const cell = cellAt(explanation.geometry, explanation.grid, pointOf(stage, event));
  if (cell?.row !== state.cell?.row || cell?.column !== state.cell?.column) session.update({ cell });
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {PointerEvent} event
 */
function beginDrag(stage, session, event) {
  const { state, explanation } = session;
  if (!explanation || event.button === 1) return null;
  const base = { pointer: event.pointerId, x: event.offsetX, y: event.offsetY, before: state.region, begun: false };
  if (state.tool === "window" || event.shiftKey) return beginWindow(state.item, base);
  if (event.button !== 0 || state.tool === "inspect") return null;
  return { ...base, kind: state.tool, points: [pointOf(stage, event)] };
}

/** @param {any} item @param {any} base */
function beginWindow(item, base) {
  return item.picture ? { ...base, kind: "window", window: item.window } : null;
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {any} drag
 * @param {PointerEvent} event
 */
function continueDrag(stage, session, drag, event) {
  const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
  if (!drag.begun && Math.hypot(dx, dy) < LEAST) return;
  drag.begun = true;
  if (drag.kind === "window") dragWindow(session, drag, dx, dy);
  else if (drag.kind === "rectangle") {
    session.update({ region: { kind: "rectangle", from: drag.points[0], to: pointOf(stage, event) }, cell: null });
  } else extendLasso(stage, session, drag, event);
}

/**
 * @param {Stage} stage
 * @param {Session} session
 * @param {any} drag
 * @param {PointerEvent} event
 */
function extendLasso(stage, session, drag, event) {
  const last = stage.toScreen(drag.points[drag.points.length - 1]);
  if (Math.hypot(event.offsetX - last.x, event.offsetY - last.y) < STEP) return;
  drag.points.push(pointOf(stage, event));
  session.update({ region: { kind: "lasso", points: [...drag.points] }, cell: null });
}

/**
 * To the right a wider window (less contrast), downwards a higher centre (darker).
 * @param {Session} session
 * @param {any} drag
 * @param {number} dx
 * @param {number} dy
 */
function dragWindow(session, drag, dx, dy) {
  const { item } = session.state;
  const full = fullWindow(item.picture).width;
  const width = Math.min(Math.max(drag.window.width + (dx * full) / 400, full / 255), 2 * full);
  const center = Math.min(Math.max(drag.window.center + (dy * full) / 400, 0), full);
  item.window = { center: Math.round(center), width: Math.round(width) };
  session.update({ item });
}

/** @param {Session} session @param {any} drag */
function cancelDrag(session, drag) {
  if (drag?.begun && drag.kind !== "window") session.update({ region: drag.before });
  return null;
}

/** @param {Stage} stage @param {PointerEvent} event */
function pointOf(stage, event) {
  return stage.toImage({ x: event.offsetX, y: event.offsetY });
}
