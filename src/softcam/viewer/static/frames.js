/** The slices of a file that holds several. */

import { element, setText } from "./elements.js";

/** @typedef {import("./session.js").Session} Session */

/** @param {import("./items.js").Items} items */
export function watchFrames(items) {
  element("frame").addEventListener("input", (/** @type {any} */ event) =>
    items.chooseFrame(Number(event.target.value)),
  );
}

/** @param {Session} session */
export function drawFrames({ state }) {
  const { item } = state;
  const several = Boolean(item?.shown) && item.frames > 1 && Boolean(item.file);
  element("frames").hidden = !several;
  if (!several) return;
  const slider = element("frame");
  slider.max = String(item.frames);
  if (Number(slider.value) !== item.frame) slider.value = String(item.frame);
  const shown = item.shown.record.frame ?? 1;
  const text = `${item.frame} of ${item.frames}${shown === item.frame ? "" : " …"}`;
  slider.setAttribute("aria-valuetext", text);
  setText(element("frame-output"), text);
}
