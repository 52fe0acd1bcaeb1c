/** The settings: each input shows the state, and changes it. */

import { COLOR_MAPS } from "./colors.js";
import { element, fillSelect, make, setText } from "./elements.js";
import { formatLogit, formatPercent, formatShare, formatSigned } from "./numbers.js";
import { fullWindow } from "./pixels.js";

/** @typedef {import("./session.js").Session} Session */

/** @param {Session} session */
export function watchControls(session) {
  watchSliders(session);
  watchChoices(session);
  for (const button of element("tools").children) {
    button.addEventListener("click", () => session.update({ tool: button.dataset.tool }));
  }
  for (const name of /** @type {("smooth"|"alone"|"hidden")[]} */ (["smooth", "alone", "hidden"])) {
    const button = element(name === "hidden" ? "hide" : name);
    button.addEventListener("click", () => session.update({ [name]: !session.state[name] }));
  }
  element("region-clear").addEventListener("click", () => session.update({ region: null }));
  element("more-classes").addEventListener("click", () =>
    session.update({ allClasses: !session.state.allClasses }),
  );
  watchWindow(session);
}

/** @param {Session} session */
function watchSliders(session) {
  const value = (/** @type {Event} */ event) => Number(/** @type {HTMLInputElement} */ (event.target).value);
  element("opacity").addEventListener("input", (/** @type {Event} */ e) => session.update({ opacity: value(e) }));
  element("threshold").addEventListener("input", (/** @type {Event} */ e) => session.update({ threshold: value(e) }));
  element("share").addEventListener("input", (/** @type {Event} */ e) =>
    session.update({ share: value(e), ...unmark(session) }),
  );
  for (const side of ["positive", "negative"]) {
    element(side).addEventListener("input", (/** @type {Event} */ event) =>
      session.update({ weights: { ...session.state.weights, [side]: value(event) } }),
    );
  }
  element("limit").addEventListener("input", (/** @type {Event} */ event) => {
    const limit = value(event);
    if (limit > 0 && Number.isFinite(limit)) session.update({ limit });
  });
  element("limit-fit").addEventListener("click", () => session.fitLimit());
}

/** A region of the list is another one when the list changes. @param {Session} session */
function unmark({ state }) {
  return state.region?.kind === "cells" ? { region: null } : {};
}

/** @param {Session} session */
function watchChoices(session) {
  const number = (/** @type {string} */ text) => (/^\d+$/.test(text) ? Number(text) : text);
  for (const side of ["target", "against"]) {
    element(side).addEventListener("change", (/** @type {any} */ event) =>
      session.update({ choice: { ...session.state.choice, [side]: number(event.target.value) }, ...unmark(session) }),
    );
  }
  element("colors").addEventListener("change", (/** @type {any} */ event) =>
    session.update({ colors: event.target.value }),
  );
  fillSelect(element("colors"), COLOR_MAPS.map(({ name, title }) => [name, title]), session.state.colors);
}

/** @param {Session} session */
function watchWindow(session) {
  const change = (/** @type {any} */ patch) => {
    const { item } = session.state;
    if (!item?.picture) return;
    item.window = { ...item.window, ...patch };
    session.update({ item });
  };
  for (const part of ["center", "width"]) {
    element(`window-${part}`).addEventListener("input", (/** @type {any} */ event) =>
      change({ [part]: Number(event.target.value) }),
    );
  }
  element("window-reset").addEventListener("click", () => change(fullWindow(session.state.item.picture)));
}

/** @param {Session} session */
export function drawControls(session) {
  const { state } = session;
  for (const button of element("tools").children) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === state.tool));
  }
  element("stage").dataset.tool = state.tool;
  element("smooth").setAttribute("aria-pressed", String(state.smooth));
  element("alone").setAttribute("aria-pressed", String(state.alone));
  element("hide").setAttribute("aria-pressed", String(state.hidden));
  const limit = state.limit ?? 1;
  drawSlider("opacity", state.opacity, formatShare(state.opacity));
  drawSlider("threshold", state.threshold, `${formatLogit(state.threshold * limit, 2)}`);
  drawSlider("positive", state.weights.positive, formatShare(state.weights.positive));
  drawSlider("negative", state.weights.negative, formatShare(state.weights.negative));
  drawSlider("share", state.share, `${formatShare(state.share)} of max`);
  drawChoices(session);
  drawWindow(session);
}

/**
 * @param {string} id
 * @param {number} value
 * @param {string} text
 */
function drawSlider(id, value, text) {
  const input = element(id);
  if (Number(input.value) !== value) input.value = String(value);
  input.setAttribute("aria-valuetext", text);
  setText(element(`${id}-output`), text);
}

/** @param {Session} session */
function drawChoices({ explanation, state }) {
  if (!explanation) return;
  const { classes, independent } = explanation;
  const names = classes.map((name, index) => /** @type {[string, string]} */ ([String(index), name]));
  const first = independent ? "Highest logit" : "Predicted class";
  fillSelect(element("target"), [["predicted", first], ...names], String(state.choice.target));
  /** @type {[string, string][]} */
  const others = [["none", "– (one class alone)"], ...names];
  if (!independent) others.unshift(["rival", "Runner-up"]);
  const against = independent && state.choice.against === "rival" ? "none" : state.choice.against;
  fillSelect(element("against"), others, String(against));
  element("against").disabled = classes.length === 1;
}

/** @param {Session} session */
function drawWindow({ state }) {
  const picture = state.item?.picture;
  element("window-section").hidden = !picture;
  if (!picture) return;
  const { center, width } = state.item.window;
  for (const id of ["window-center", "window-width"]) {
    element(id).min = id === "window-width" ? String(Math.ceil(picture.top / 255)) : "0";
    element(id).max = String(id === "window-width" ? 2 * picture.top : picture.top);
  }
  drawSlider("window-center", center, String(Math.round(center)));
  drawSlider("window-width", width, String(Math.round(width)));
}

/** @param {Session} session */
export function drawRegionList(session) {
  const list = element("regions");
  const { regions, state } = session;
  const chosen = state.region?.kind === "cells" ? state.region.number : -1;
  const key = JSON.stringify([regions.map((region) => [region.contribution, region.cells.length]), chosen]);
  if (list.dataset.drawn === key) return;
  list.dataset.drawn = key;
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...regions.map((region, number) => makeRegion(session, region, number, number === chosen)));
  if (focused) list.querySelector("[aria-pressed=true]")?.focus();
}

/**
 * @param {Session} session
 * @param {import("./regions.js").Region} region
 * @param {number} number
 * @param {boolean} chosen
 */
function makeRegion(session, region, number, chosen) {
  const size = region.cells.length === 1 ? "1 cell" : `${region.cells.length} cells`;
  const button = make("button", { type: "button", "aria-pressed": String(chosen) }, [
    make("span", { class: "region-number" }, [String(number + 1)]),
    make("span", { class: "region-value" }, [formatSigned(region.contribution)]),
    make("span", { class: "hint" }, [size]),
  ]);
  button.addEventListener("click", () => chooseRegion(session, chosen ? null : number));
  return make("li", {}, [button]);
}

/**
 * Measure a region of the list.
 * @param {Session} session
 * @param {number|null} number
 */
export function chooseRegion(session, number) {
  const region = number === null ? null : session.regions[number];
  if (!region || number === null) return session.update({ region: null });
  return session.update({ region: { kind: "cells", cells: region.cells, number }, cell: null });
}

/** What is announced of an item. @param {any} item */
export function describeItem(item) {
  if (item.status === "failed") return `${item.name}: failed, ${item.reason}`;
  if (!item.shown) return `${item.name}: waiting`;
  const { record, classes } = item.shown;
  const at = classes.indexOf(record.predicted);
  return `${item.name}: ${record.predicted || "none"}${at < 0 ? "" : `, ${formatPercent(record.probabilities[at])}`}`;
}
