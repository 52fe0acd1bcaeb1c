/** The colour bar: the colours of the map at every value of the scale, in logits. */

import { element, make, setText } from "./elements.js";
import { nameContrast } from "./explanation.js";
import { formatSigned } from "./numbers.js";
import { paintValues } from "./overlay.js";
import { isBare, readStyle } from "./scene.js";

/** @typedef {import("./session.js").Session} Session */

const GROUND = 128;

/** @param {Session} session */
export function drawColorbar(session) {
  const { explanation, view, state } = session;
  const limit = state.limit ?? 1;
  paintBar(element("colorbar"), session);
  const field = element("limit");
  if (document.activeElement !== field) field.value = String(limit);
  drawTicks(limit);
  if (!explanation || !view) return;
  setText(element("scale-for"), `for ${explanation.classes[view.target]}`);
  const other = view.against === null ? "against" : `for ${explanation.classes[view.against]}`;
  setText(element("scale-against"), other);
  setText(element("stage-title"), `Evidence: ${nameContrast(explanation, view)}`);
}

/**
 * Paint every value from -limit to +limit, as it looks on middle grey where the image shines through.
 * @param {HTMLCanvasElement} canvas
 * @param {Session} session
 */
export function paintBar(canvas, session) {
  const style = readStyle(session, isBare(session));
  const { width, height } = canvas;
  const values = Float64Array.from({ length: width }, (_, x) => style.limit * ((2 * x) / (width - 1) - 1));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const row = context.createImageData(width, 1);
  paintValues(row.data, values, style);
  for (let i = 0; i < row.data.length; i += 4) {
    const share = row.data[i + 3] / 255;
    for (let c = 0; c < 3; c += 1) row.data[i + c] = GROUND * (1 - share) + row.data[i + c] * share;
    row.data[i + 3] = 255;
  }
  for (let y = 0; y < height; y += 1) context.putImageData(row, 0, y);
}

/** @param {number} limit */
function drawTicks(limit) {
  const ticks = element("ticks");
  const texts = [-1, -0.5, 0, 0.5, 1].map((share) => (share === 0 ? "0" : formatTick(share * limit)));
  while (ticks.children.length < texts.length) ticks.append(make("span"));
  texts.forEach((text, index) => setText(ticks.children[index], text));
}

/** @param {number} value */
export function formatTick(value) {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return formatSigned(value, digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}
