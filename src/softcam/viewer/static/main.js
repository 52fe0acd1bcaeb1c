/** The page: what it starts with, and what is drawn when something changes. */

import { fetchModels } from "./api.js";
import { drawColorbar } from "./colorbar.js";
import { drawComparison, updateComparison, watchComparison } from "./comparison.js";
import { describeItem, drawControls, drawRegionList, watchControls } from "./controls.js";
import { element, fillSelect, setText } from "./elements.js";
import { drawExports, watchExports } from "./exports.js";
import { drawFrames, watchFrames } from "./frames.js";
import { movesImage, watchPointer } from "./gestures.js";
import { Items } from "./items.js";
import { watchKeys } from "./keys.js";
import { drawList } from "./list.js";
import { describeCell, describeRegion, drawCaveat, drawMeasurement, drawReadout } from "./measurement.js";
import { formatSigned } from "./numbers.js";
import { drawPrediction } from "./prediction.js";
import { drawPeer, drawScene } from "./scene.js";
import { Session } from "./session.js";
import { createZoom, Stage } from "./stage.js";
import { watchTheme } from "./theme.js";

const QUIET_MS = 350;
const NOTICE_MS = 8000;

/** Everything on the page, put together. */
function start() {
  const session = new Session();
  const redraw = () => session.update({});
  const items = new Items(session, notify);
  const stage = new Stage(element("stage"), redraw);
  const peer = new Stage(element("peer"), redraw);
  const zoom = joinZoom(session, stage, peer, redraw);
  session.subscribe((changed) => draw(session, items, { stage, peer }, changed));
  watchPointer(stage, session);
  watchControls(session);
  watchComparison(session);
  watchFrames(items);
  watchExports(session, stage, notify);
  watchKeys({ session, items, zoom });
  watchTheme(redraw);
  element("zoom-in").addEventListener("click", () => zoom.by(1.4));
  element("zoom-out").addEventListener("click", () => zoom.by(1 / 1.4));
  element("zoom-fit").addEventListener("click", () => zoom.fit());
  const embedded = document.getElementById("softcam-embedded");
  if (embedded) openEmbedded(session, items, JSON.parse(embedded.textContent ?? ""));
  else openService(session, items);
}

/**
 * Let both stages move as one.
 * @param {Session} session
 * @param {Stage} stage
 * @param {Stage} peer
 * @param {() => void} redraw
 */
function joinZoom(session, stage, peer, redraw) {
  return createZoom(stage, (event) => movesImage(session, event), (transform) => {
    stage.transform = transform;
    peer.transform = transform;
    redraw();
  });
}

/**
 * @param {Session} session
 * @param {Items} items
 * @param {any} data
 */
function openEmbedded(session, items, data) {
  for (const part of document.querySelectorAll("[data-online]")) part.remove();
  element("welcome-open").remove();
  session.update({ models: data.models, model: data.predictions[0]?.model?.name ?? "" });
  items.addRecords(data.predictions).then(() => document.body.setAttribute("data-ready", ""));
}

/**
 * @param {Session} session
 * @param {Items} items
 */
async function openService(session, items) {
  session.update({ online: true });
  watchFiles(items);
  try {
    const { models, default: model } = await fetchModels();
    session.update({ models, model });
  } catch (problem) {
    notify(`No models: ${/** @type {Error} */ (problem).message}`);
  }
  element("model").addEventListener("change", (/** @type {any} */ event) => items.changeModel(event.target.value));
  document.body.setAttribute("data-ready", "");
}

/** @param {Items} items */
function watchFiles(items) {
  const input = element("files");
  for (const id of ["open", "welcome-open"]) element(id).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    items.addFiles(Array.from(input.files));
    input.value = "";
  });
  const drop = element("drop");
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.hidden = true;
    items.addFiles(Array.from(event.dataTransfer?.files ?? []));
  });
}

/**
 * Draw everything that may have changed; each part leaves alone what has not.
 * @param {Session} session
 * @param {Items} items
 * @param {{stage: Stage, peer: Stage}} stages
 * @param {Set<string>} changed
 */
function draw(session, items, { stage, peer }, changed) {
  if (!session.explanation) stage.clear({ width: 1, height: 1 });
  drawScene(stage, session);
  updateComparison(session);
  drawComparison(session);
  if (!element("peer-frame").hidden) drawPeer(peer, session);
  if (changed.size === 0) return;
  drawMeasurement(session);
  drawReadout(session);
  drawPrediction(session);
  announce(session, changed);
  const small = new Set(["cell", "anchor"]);
  if (Array.from(changed).every((name) => small.has(name))) return;
  drawColorbar(session);
  drawControls(session);
  drawRegionList(session);
  drawFrames(session);
  drawExports(session);
  drawCaveat(session);
  drawModel(session);
  drawWelcome(session);
  drawList(session, (item) => items.choose(item));
}

/** @param {Session} session */
function drawModel(session) {
  const { models, model } = session.state;
  const names = models.map((info) => /** @type {[string, string]} */ ([info.name, info.name]));
  element("model-area").hidden = models.length === 0;
  fillSelect(element("model"), names, model);
  element("model").disabled = names.length < 2;
  const info = session.modelInfo;
  const [rows, columns] = session.explanation?.grid ?? info?.grid ?? [];
  const facts = info && [info.architecture, `${rows} × ${columns} cells`, `${info.classes.length} classes`];
  setText(element("model-facts"), facts ? facts.filter(Boolean).join(" · ") : "");
}

/** @param {Session} session */
function drawWelcome({ state, explanation }) {
  const { item } = state;
  element("desk").classList.toggle("vacant", !explanation);
  element("welcome").hidden = Boolean(explanation);
  document.getElementById("welcome-open")?.toggleAttribute("hidden", Boolean(item));
  const failed = item?.status === "failed";
  const title = failed ? `${item.name} could not be explained` : `Computing ${item?.name ?? ""} …`;
  setText(element("welcome-title"), item ? title : "Drop images or DICOM files here");
  const hint = failed ? item.reason : "";
  setText(element("welcome-hint"), item ? hint : "or choose them. They go to this service and nowhere else.");
}

let quiet = 0;

/**
 * Say what changed once it has come to rest.
 * @param {Session} session
 * @param {Set<string>} changed
 */
function announce(session, changed) {
  if (!["cell", "region", "item", "weights", "choice"].some((name) => changed.has(name))) return;
  clearTimeout(quiet);
  quiet = window.setTimeout(() => setText(element("announcer"), describeNow(session, changed)), QUIET_MS);
}

/**
 * @param {Session} session
 * @param {Set<string>} changed
 */
function describeNow(session, changed) {
  const { measurement, state } = session;
  if (changed.has("region") && measurement) {
    return `${formatSigned(measurement.value)} logits. ${describeRegion(session)}`;
  }
  if (changed.has("cell") && state.cell) return describeCell(session);
  return state.item ? describeItem(state.item) : "";
}

let noticed = 0;

/** Say what went wrong, for a while. @param {string} text */
function notify(text) {
  const notice = element("notice");
  setText(notice, text);
  notice.hidden = false;
  clearTimeout(noticed);
  noticed = window.setTimeout(() => (notice.hidden = true), NOTICE_MS);
}

start();
