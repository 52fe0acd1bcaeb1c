/** Another method's map beside the evidence, on request. */

import { requestAttribution } from "./api.js";
import { element, fillSelect, setText } from "./elements.js";

/** @typedef {import("./session.js").Session} Session */

/** @param {Session} session */
export function watchComparison(session) {
  element("method").addEventListener("change", (/** @type {any} */ event) => {
    const method = event.target.value;
    session.update({ peer: method ? { method, result: null, key: "", problem: "" } : null });
  });
}

/** Ask for what the shown image and class need, once. @param {Session} session */
export function updateComparison(session) {
  const { peer, item, model } = session.state;
  const { view } = session;
  if (!peer || !item?.file || !view) return;
  const key = JSON.stringify([peer.method, session.state.items.indexOf(item), item.frame, view.target, model]);
  if (peer.key === key) return;
  const wanted = { ...peer, key, result: null, problem: "" };
  session.update({ peer: wanted });
  const options = { model, method: peer.method, target: view.target, frame: item.frame };
  requestAttribution(item.file, options).then(
    (result) => settle(session, key, { result }),
    (problem) => settle(session, key, { problem: problem.message }),
  );
}

/**
 * @param {Session} session
 * @param {string} key
 * @param {any} outcome
 */
function settle(session, key, outcome) {
  const { peer } = session.state;
  if (peer?.key === key) session.update({ peer: { ...peer, ...outcome } });
}

/** @param {Session} session */
export function drawComparison(session) {
  const { peer, item } = session.state;
  const { modelInfo, explanation } = session;
  const methods = modelInfo?.methods ?? [];
  const possible = methods.length > 0 && Boolean(item?.file);
  element("compare-section").hidden = !possible;
  element("peer-frame").hidden = !possible || !peer || !explanation;
  element("stages").classList.toggle("double", !element("peer-frame").hidden);
  if (!possible) return;
  const options = methods.map((/** @type {any} */ method) => [method.name, method.title]);
  fillSelect(element("method"), [["", "– none"], ...options], peer?.method ?? "");
  const info = methods.find((/** @type {any} */ method) => method.name === peer?.method);
  setText(element("method-notes"), info ? noteOn(info) : "");
  setText(element("peer-title"), titleOf(info, peer, explanation));
  element("peer").setAttribute("aria-label", element("peer-title").textContent);
}

/** @param {any} info */
function noteOn(info) {
  return `${info.notes} It has no unit: its colours reach to its own largest value, whatever the scale.`.trim();
}

/**
 * @param {any} info
 * @param {any} peer
 * @param {any} explanation
 */
function titleOf(info, peer, explanation) {
  if (!info || !explanation) return "";
  if (peer.problem) return `${info.title}: ${peer.problem}`;
  if (!peer.result) return `${info.title}: computing …`;
  return `${info.title}: ${explanation.classes[peer.result.target]}`;
}
