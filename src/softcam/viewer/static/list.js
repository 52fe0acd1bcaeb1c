/** The list of images: thumbnails with what was predicted, or why that failed. */

import { element, make, setText } from "./elements.js";
import { findPredicted, resolveChoice } from "./explanation.js";
import { originalRectangle } from "./geometry.js";
import { formatPercent } from "./numbers.js";
import { drawOverlay } from "./overlay.js";
import { differenceMap } from "./accounting.js";

/** @typedef {import("./session.js").Session} Session */

const SIDE = 96;
const STATES = { queued: "waiting", running: "computing …" };

/**
 * @param {Session} session
 * @param {(item: any) => void} choose
 */
export function drawList(session, choose) {
  const { items, item: current, online } = session.state;
  const list = element("list");
  element("desk").classList.toggle("single", items.length < 2 && !online);
  const failed = items.filter((item) => item.status === "failed").length;
  const open = items.filter((item) => item.status in STATES).length;
  const parts = [`${items.length}`, open ? `${open} to go` : "", failed ? `${failed} failed` : ""];
  setText(element("list-count"), items.length ? parts.filter(Boolean).join(" · ") : "");
  for (const item of items) {
    if (!item.row) {
      item.row = makeListRow(item, choose);
      list.append(item.row);
    }
    drawListRow(item, item === current, session);
  }
}

/**
 * @param {any} item
 * @param {(item: any) => void} choose
 */
function makeListRow(item, choose) {
  const thumbnail = make("canvas", { width: String(SIDE), height: String(SIDE), "aria-hidden": "true" });
  const texts = make("span", { class: "row-texts" }, [
    make("span", { class: "row-name" }, [item.name.split(/[\\/]/).pop()]),
    make("span", { class: "row-state" }),
  ]);
  const button = make("button", { type: "button", title: item.name }, [thumbnail, texts]);
  button.addEventListener("click", () => choose(item));
  return make("li", {}, [button]);
}

/**
 * @param {any} item
 * @param {boolean} current
 * @param {Session} session
 */
function drawListRow(item, current, session) {
  const button = item.row.firstElementChild;
  if (current) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  item.row.className = item.status;
  setText(button.querySelector(".row-state"), describeState(item));
  const key = [item.shown, item.thumb, session.state.limit, session.state.colors, session.state.choice];
  if (item.status !== "ok" || key.every((part, index) => part === item.drawnWith?.[index])) return;
  if (item.shown.preview && !item.thumb) return;
  item.drawnWith = key;
  drawThumbnail(button.firstElementChild, item, session);
}

/** @param {any} item */
function describeState(item) {
  if (item.status === "failed") return item.reason;
  if (!item.shown) return STATES[/** @type {"queued"} */ (item.status)] ?? "";
  const { record } = item.shown;
  const index = record.classes.indexOf(record.predicted);
  const shown = index < 0 ? findPredicted(item.shown) : index;
  const name = record.predicted || `${record.classes[shown]}, below its threshold`;
  return `${formatPercent(record.probabilities[shown])} ${name}`;
}

/**
 * Draw the image, small, with its evidence.
 * @param {HTMLCanvasElement} canvas
 * @param {any} item
 * @param {Session} session
 */
function drawThumbnail(canvas, item, session) {
  const { shown } = item;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const scale = SIDE / Math.max(shown.width, shown.height);
  const [left, top] = [(SIDE - scale * shown.width) / 2, (SIDE - scale * shown.height) / 2];
  context.clearRect(0, 0, SIDE, SIDE);
  const ground = item.thumb;
  if (ground) context.drawImage(ground, left, top, scale * shown.width, scale * shown.height);
  const { target, against } = resolveChoice(shown, session.state.choice);
  const values = differenceMap(shown.maps, shown.classes.length, target, against);
  const { limit, colors } = session.state;
  const style = { limit: limit ?? 1, opacity: 0.75, threshold: 0, colors, alone: !ground };
  const overlay = drawOverlay(values, shown.grid, style, Boolean(ground));
  const view = originalRectangle(shown.geometry, { left: 0, top: 0, right: shown.input[1], bottom: shown.input[0] });
  context.imageSmoothingEnabled = Boolean(ground);
  context.drawImage(overlay, left + scale * view.x, top + scale * view.y, scale * view.width, scale * view.height);
}
