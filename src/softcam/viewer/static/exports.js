/** What is shown, as files. */

import { requestDicom } from "./api.js";
import { formatTick, paintBar } from "./colorbar.js";
import { download, element } from "./elements.js";
import { nameContrast } from "./explanation.js";
import { cellRectangle } from "./geometry.js";
import { placeRegion } from "./regions.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {import("./stage.js").Stage} Stage */

const FOOT = 64;

/**
 * @param {Session} session
 * @param {Stage} stage
 * @param {(text: string) => void} notify
 */
export function watchExports(session, stage, notify) {
  element("export-png").addEventListener("click", () => savePicture(session, stage));
  element("export-csv").addEventListener("click", () => saveText(session, "csv", writeCells(session), "text/csv"));
  element("export-json").addEventListener("click", () =>
    saveText(session, "json", writeRecord(session), "application/json"),
  );
  element("export-dicom").addEventListener("click", () => saveDicom(session, notify));
}

/** @param {Session} session */
export function drawExports(session) {
  const { explanation, state } = session;
  for (const kind of ["png", "csv", "json"]) element(`export-${kind}`).disabled = !explanation;
  element("export-dicom").hidden = explanation?.record.format !== "DICOM" || !state.item.file;
}

/**
 * Every cell with its pixels of the original and its values.
 * @param {Session} session
 */
export function writeCells({ explanation, view }) {
  if (!explanation || !view) return "";
  const { grid, geometry, classes } = explanation;
  const size = view.values.length;
  const shown = [view.target, ...(view.against === null ? [] : [view.against])];
  const names = shown.map((k) => classes[k]);
  if (view.against !== null) names.push(nameContrast(explanation, view));
  const lines = [["row", "column", "x", "y", "width", "height", ...names.map(quote)].join(",")];
  for (let cell = 0; cell < size; cell += 1) {
    const [row, column] = [Math.floor(cell / grid[1]), cell % grid[1]];
    const { x, y, width, height } = cellRectangle(geometry, grid, row, column);
    const values = shown.map((k) => view.maps[k * size + cell]);
    if (view.against !== null) values.push(view.values[cell]);
    lines.push([row, column, x, y, width, height, ...values].join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

/** Text that no spreadsheet takes for a formula. @param {string} text */
function quote(text) {
  const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${plain.replaceAll('"', '""')}"`;
}

/**
 * The response without its picture, with what was found and measured on the page.
 * @param {Session} session
 */
export function writeRecord(session) {
  const { explanation, view, measurement, regions, state } = session;
  if (!explanation || !view) return "";
  const contrast = { target: view.target, against: view.against };
  const { grid, geometry, record } = explanation;
  const found = regions.map((region) => ({ ...region, ...placeRegion(region.cells, grid, geometry, record.spacing) }));
  const measured = measurement && {
    ...state.region,
    coverage: measurement.coverage,
    contributions: Array.from(measurement.added),
    logits_without: Array.from(measurement.without),
  };
  const page = { ...contrast, weights: state.weights, share_of_strongest: state.share, regions: found, measured };
  return JSON.stringify({ ...explanation.record, page });
}

/**
 * @param {Session} session
 * @param {string} suffix
 * @param {string} text
 * @param {string} type
 */
function saveText({ state }, suffix, text, type) {
  if (text) download(new Blob([text], { type }), `${baseName(state.item)}.evidence.${suffix}`);
}

/**
 * The stages with the colour bar under them.
 * @param {Session} session
 * @param {Stage} stage
 */
function savePicture(session, stage) {
  if (!session.explanation) return;
  const peer = element("peer-frame").hidden ? null : element("peer");
  const canvas = document.createElement("canvas");
  canvas.width = stage.canvas.width + (peer?.width ?? 0);
  canvas.height = stage.canvas.height + FOOT * stage.ratio;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const colors = getComputedStyle(document.body);
  context.fillStyle = colors.backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(stage.canvas, 0, 0);
  if (peer) context.drawImage(peer, stage.canvas.width, 0);
  context.scale(stage.ratio, stage.ratio);
  context.fillStyle = colors.color;
  drawFoot(context, session, stage.size);
  canvas.toBlob((blob) => blob && download(blob, `${baseName(session.state.item)}.evidence.png`), "image/png");
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Session} session
 * @param {{width: number, height: number}} size
 */
function drawFoot(context, session, size) {
  const bar = document.createElement("canvas");
  [bar.width, bar.height] = [512, 1];
  paintBar(bar, session);
  const limit = session.state.limit ?? 1;
  const width = Math.min(320, size.width - 40);
  const [left, top] = [(size.width - width) / 2, size.height + 24];
  context.drawImage(bar, left, top, width, 10);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(`${element("stage-title").textContent} (logits per cell)`, left + width / 2, top - 9);
  for (const share of [-1, 0, 1]) {
    context.fillText(share === 0 ? "0" : formatTick(share * limit), left + (width * (share + 1)) / 2, top + 26);
  }
}

/**
 * @param {Session} session
 * @param {(text: string) => void} notify
 */
async function saveDicom({ state, explanation }, notify) {
  if (!state.item?.file || explanation?.record.format !== "DICOM") return;
  const button = element("export-dicom");
  button.disabled = true;
  try {
    const options = { model: state.model, frame: state.item.frame };
    download(await requestDicom(state.item.file, options), `${baseName(state.item)}.evidence.zip`);
  } catch (problem) {
    notify(`DICOM: ${/** @type {Error} */ (problem).message}`);
  } finally {
    button.disabled = false;
  }
}

/** A file's name without folders and suffix. @param {any} item */
function baseName(item) {
  const name = item.name.split(/[\\/]/).pop().replace(/\.[^.]{1,5}$/, "");
  return name.replace(/[^\w.-]+/g, "_") || "image";
}
