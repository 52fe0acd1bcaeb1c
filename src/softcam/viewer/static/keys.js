/** The keyboard: every action of the page by a key, and the list of them. */

import { chooseRegion } from "./controls.js";
import { element, make } from "./elements.js";
import { cellRectangle } from "./geometry.js";

/** @typedef {import("./session.js").Session} Session */
/**
 * @typedef {object} Desk what keys act on
 * @property {Session} session
 * @property {import("./items.js").Items} items
 * @property {ReturnType<typeof import("./stage.js").createZoom>} zoom
 */

const PAN = 60;

/** Keys with what they do, as the help lists them. */
const KEYS = [
  ["← ↑ → ↓", "on the image: from cell to cell"],
  ["Shift + arrows", "on the image: measure a rectangle of cells"],
  ["Alt + arrows", "on the image: move it"],
  ["+ − 0", "zoom in, zoom out, fit"],
  ["N B", "next image, image before"],
  [". ,", "next slice, slice before"],
  ["G", "next strongest region (Shift + G: the one before)"],
  ["V R L W", "inspect, rectangle, lasso, window"],
  ["Shift + drag", "window: sideways its width, up and down its centre"],
  ["S M H", "smooth, map alone, image alone"],
  ["X", "the map of one class, or the difference to the runner-up"],
  ["Esc", "clear region and cell"],
  ["P C J D", "export PNG, CSV, JSON, DICOM"],
  ["O", "open images"],
  ["?", "this help"],
];

const ARROWS = /** @type {Record<string, [number, number]>} */ ({
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
});

/** @param {Desk} desk */
export function watchKeys(desk) {
  for (const [keys, meaning] of KEYS) element("keys").append(make("dt", {}, [keys]), make("dd", {}, [meaning]));
  const help = element("help");
  element("help-open").addEventListener("click", () => help.showModal());
  element("help-close").addEventListener("click", () => help.close());
  const actions = listActions(desk);
  document.addEventListener("keydown", (event) => {
    if (help.open || event.ctrlKey || event.metaKey || isTyping(event)) return;
    const onStage = event.target === element("stage");
    if (onStage && ARROWS[event.key]) return useArrow(desk, event);
    const action = event.altKey ? undefined : actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Whether a key is meant for a field. @param {KeyboardEvent} event */
function isTyping({ target, key }) {
  const field = /** @type {HTMLElement} */ (target);
  if (field instanceof HTMLSelectElement) return true;
  return field instanceof HTMLInputElement && (field.type !== "range" || key.startsWith("Arrow"));
}

/** @param {Desk} desk @returns {Record<string, () => void>} */
function listActions({ session, items, zoom }) {
  const press = (/** @type {string} */ id) => () => !element(id).hidden && element(id).click();
  const toggle = (/** @type {"smooth"|"alone"|"hidden"} */ name) => () =>
    session.update({ [name]: !session.state[name] });
  const tool = (/** @type {string} */ name) => () => session.update({ tool: name });
  const frame = (/** @type {number} */ step) => () => items.chooseFrame((session.state.item?.frame ?? 0) + step);
  return {
    "+": () => zoom.by(1.4), "=": () => zoom.by(1.4), "-": () => zoom.by(1 / 1.4), "0": () => zoom.fit(),
    n: () => stepItem(session, items, 1), b: () => stepItem(session, items, -1),
    ".": frame(1), ",": frame(-1),
    g: () => stepRegion(session, 1), G: () => stepRegion(session, -1),
    v: tool("inspect"), r: tool("rectangle"), l: tool("lasso"), w: tool("window"),
    s: toggle("smooth"), m: toggle("alone"), h: toggle("hidden"),
    x: () => toggleDifference(session),
    Escape: () => session.update({ region: null, cell: null }),
    p: press("export-png"), c: press("export-csv"), j: press("export-json"), d: press("export-dicom"),
    o: press("open"), "?": () => element("help").showModal(),
  };
}

/** @param {Session} session */
function toggleDifference(session) {
  const { choice } = session.state;
  session.update({ choice: { ...choice, against: choice.against === "none" ? "rival" : "none" } });
}

/**
 * @param {Session} session
 * @param {import("./items.js").Items} items
 * @param {number} step
 */
function stepItem({ state }, items, step) {
  const next = state.items.indexOf(state.item) + step;
  if (next < 0 || next >= state.items.length) return;
  items.choose(state.items[next]);
  state.items[next].row?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** @param {Session} session @param {number} step */
function stepRegion(session, step) {
  const { regions, state } = session;
  if (regions.length === 0) return;
  const at = state.region?.kind === "cells" ? state.region.number : step > 0 ? -1 : 0;
  chooseRegion(session, (at + step + regions.length) % regions.length);
}

/** @param {Desk} desk @param {KeyboardEvent} event */
function useArrow({ session, zoom }, event) {
  const [down, right] = ARROWS[event.key];
  event.preventDefault();
  if (event.altKey) return zoom.pan(-PAN * right, -PAN * down);
  const { explanation, state } = session;
  if (!explanation) return undefined;
  const [rows, columns] = explanation.grid;
  const here = state.cell;
  const cell = here
    ? { row: clamp(here.row + down, rows), column: clamp(here.column + right, columns) }
    : { row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
  if (!event.shiftKey) return session.update({ cell, anchor: cell });
  const anchor = state.anchor ?? here ?? cell;
  return session.update({ cell, anchor, region: spanCells(explanation, anchor, cell) });
}

/** @param {number} value @param {number} count */
function clamp(value, count) {
  return Math.min(Math.max(value, 0), count - 1);
}

/**
 * The rectangle around two cells and all between them.
 * @param {import("./explanation.js").Explanation} explanation
 * @param {{row: number, column: number}} a
 * @param {{row: number, column: number}} b
 * @returns {import("./session.js").Region}
 */
function spanCells({ geometry, grid }, a, b) {
  const first = cellRectangle(geometry, grid, Math.min(a.row, b.row), Math.min(a.column, b.column));
  const last = cellRectangle(geometry, grid, Math.max(a.row, b.row), Math.max(a.column, b.column));
  const to = { x: last.x + last.width, y: last.y + last.height };
  return { kind: "rectangle", from: { x: first.x, y: first.y }, to };
}
