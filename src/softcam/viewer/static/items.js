/** The images of the page: each with its file, its explanations and its picture. */

import { requestExplanation, ServiceProblem } from "./api.js";
import { readExplanation } from "./explanation.js";
import { decodePicture, fullWindow, showThrough } from "./pixels.js";
import { Queue } from "./queue.js";

/** @typedef {import("./session.js").Session} Session */
/**
 * @typedef {object} Item
 * @property {string} name
 * @property {File|null} file
 * @property {"queued"|"running"|"ok"|"failed"} status
 * @property {string} reason
 * @property {number|null} frame the one that is shown
 * @property {number} frames
 * @property {Map<string, any>} results explanations, or promises of them, by model and frame
 * @property {any} shown
 * @property {any} picture
 * @property {any} window
 * @property {HTMLCanvasElement|null} [thumb]
 * @property {HTMLElement} [row]
 */

const UPLOADS = 2;
const PICTURES = 6;
const FRAMES = 24;
const THUMB = 96;
const AGAIN_SECONDS = 1;
const MOST_TRIES = 5;
const BUSY = [429, 503];

export class Items {
  /**
   * @param {Session} session
   * @param {(text: string) => void} notify
   */
  constructor(session, notify) {
    this.session = session;
    this.notify = notify;
    this.queue = new Queue(UPLOADS);
    /** @type {Item[]} the last whose pictures are kept decoded */
    this.recent = [];
  }

  /** Take explanations that came with the page. @param {any[]} records */
  addRecords(records) {
    const items = records.map((record) => makeItem(record.name, null));
    this.session.update({ items });
    items.forEach((item, index) => {
      if (records[index].status === "ok") this.settle(item, readExplanation(records[index]));
      else Object.assign(item, { status: "failed", reason: records[index].reason });
    });
    this.session.beginLimit();
    const first = items.find((item) => item.status === "ok") ?? items[0];
    return Promise.all([this.choose(first), ...items.map((item) => this.makeThumb(item))]);
  }

  /** Explain files; what fails is said in the list, and the rest goes on. @param {File[]} files */
  addFiles(files) {
    const items = files.map((file) => makeItem(file.name, file));
    this.session.update({ items: [...this.session.state.items, ...items] });
    if (!this.session.state.item && items.length > 0) this.choose(items[0]);
    for (const item of items) this.explain(item, item.frame);
  }

  /** Explain everything anew by another model. @param {string} model */
  changeModel(model) {
    this.session.update({ model, cell: null, region: null, peer: null, limit: null });
    for (const item of this.session.state.items) {
      if (!item.file) continue;
      item.shown = null;
      item.status = "queued";
    }
    const { item: current, items } = this.session.state;
    for (const item of [current, ...items.filter((other) => other !== current)]) {
      if (item?.file) this.explain(item, item.frame, item === current);
    }
  }

  /** Show an item. @param {Item} item */
  async choose(item) {
    const { peer } = this.session.state;
    this.session.update({ item, cell: null, region: null, peer: peer && { ...peer, key: "", result: null } });
    this.session.beginLimit();
    if (item?.shown) await this.showPicture(item);
  }

  /** Show another frame of the current file; its neighbours follow. @param {number} frame */
  async chooseFrame(frame) {
    const { item } = this.session.state;
    if (!item?.file || frame < 1 || frame > item.frames) return;
    item.frame = frame;
    this.session.update({ item, cell: null, region: null });
    await this.explain(item, frame, true);
  }

  /** Ask for the slices beside the shown one before anybody does. @param {Item} item */
  prefetch(item) {
    if (item.frames === 1 || item.frame === null) return;
    for (const near of [item.frame + 1, item.frame - 1]) {
      if (near >= 1 && near <= item.frames) this.fetch(item, near, false).catch(() => {});
    }
  }

  /**
   * @param {Item} item
   * @param {number|null} frame
   * @param {boolean} [urgent]
   */
  async explain(item, frame, urgent = false) {
    const { model } = this.session.state;
    try {
      const explanation = await this.fetch(item, frame, urgent);
      const picture = explanation.preview && (await decodePicture(explanation.preview));
      const other = item.frame !== null && frame !== null && item.frame !== frame;
      if (other || model !== this.session.state.model) return;
      this.settle(item, explanation);
      usePicture(item, picture);
      this.session.beginLimit();
      await this.makeThumb(item);
      if (item === this.session.state.item) {
        await this.showPicture(item);
        this.prefetch(item);
      }
    } catch (problem) {
      if (model !== this.session.state.model) return;
      this.fail(item, problem);
    }
    this.session.update({ items: this.session.state.items });
  }

  /**
   * Return an explanation, from the service once.
   * @param {Item} item
   * @param {number|null} frame
   * @param {boolean} urgent
   */
  fetch(item, frame, urgent) {
    const { model } = this.session.state;
    const key = JSON.stringify([model, frame]);
    let result = item.results.get(key);
    if (!result) {
      result = this.queue.add(() => this.request(item, model, frame), { urgent }).then(readExplanation);
      item.results.set(key, result);
      result.catch(() => item.results.delete(key));
      const oldest = item.results.keys().next().value;
      if (item.results.size > FRAMES && oldest !== undefined) item.results.delete(oldest);
    }
    return result;
  }

  /**
   * @param {Item} item
   * @param {string} model
   * @param {number|null} frame
   */
  async request(item, model, frame) {
    if (!item.shown) item.status = "running";
    this.session.update({ items: this.session.state.items });
    const file = /** @type {File} */ (item.file);
    for (let tries = 1, wanted = frame; ; tries += 1) {
      try {
        return await requestExplanation(file, { model, frame: wanted });
      } catch (problem) {
        if (!(problem instanceof ServiceProblem) || tries === MOST_TRIES) throw problem;
        if (wanted === null && asksForFrame(problem)) wanted = 1;
        else if (BUSY.includes(problem.status)) await rest();
        else throw problem;
      }
    }
  }

  /**
   * @param {Item} item
   * @param {any} explanation
   */
  settle(item, explanation) {
    const { record } = explanation;
    const old = item.shown;
    Object.assign(item, { shown: explanation, status: "ok", reason: "", frames: record.frames ?? 1 });
    if (item.frames > 1) item.frame = record.frame ?? 1;
    item.results.set(JSON.stringify([record.model.name, item.frame]), Promise.resolve(explanation));
    if (old !== explanation) item.picture = null;
    this.session.update({ items: this.session.state.items, item: this.session.state.item });
  }

  /**
   * @param {Item} item
   * @param {any} problem
   */
  fail(item, problem) {
    const reason = problem instanceof ServiceProblem ? problem.message : "the answer of the service cannot be read";
    this.notify(`${item.name}: ${reason}`);
    if (item.shown) return;
    Object.assign(item, { status: "failed", reason });
    if (item === this.session.state.item) this.session.update({ item });
  }

  /** Decode the picture of an item and keep it for a while. @param {Item} item */
  async showPicture(item) {
    await this.decode(item);
    this.recent = [item, ...this.recent.filter((other) => other !== item)];
    for (const old of this.recent.splice(PICTURES)) old.picture = null;
    if (item === this.session.state.item) this.session.update({ item });
  }

  /** @param {Item} item */
  async decode(item) {
    const { shown } = item;
    if (!shown?.preview || item.picture) return;
    const picture = await decodePicture(shown.preview);
    if (item.shown === shown) usePicture(item, picture);
  }

  /** Keep a small copy of the picture for the list. @param {Item} item */
  async makeThumb(item) {
    if (!item.shown) return;
    await this.decode(item);
    if (item.picture) item.thumb = shrink(showThrough(item.picture, item.window));
    const kept = item === this.session.state.item || this.recent.includes(item);
    if (!kept) item.picture = null;
    this.session.update({ items: this.session.state.items });
  }
}

/**
 * Show a picture through the window of the one before, if it has as many bits.
 * @param {Item} item
 * @param {any} picture
 */
function usePicture(item, picture) {
  item.picture = picture;
  if (picture && item.window?.top !== picture.top) item.window = { ...fullWindow(picture), top: picture.top };
}

/** Whether a file was refused because it holds several images. @param {ServiceProblem} problem */
function asksForFrame({ status, message }) {
  return status === 422 && /\bframes\b.*\bchosen\b/.test(message);
}

function rest() {
  return new Promise((resolve) => setTimeout(resolve, 1000 * AGAIN_SECONDS));
}

/**
 * @param {string} name
 * @param {File|null} file
 * @returns {Item}
 */
function makeItem(name, file) {
  const empty = { shown: null, picture: null, window: null, results: new Map() };
  return { name, file, status: "queued", reason: "", frame: null, frames: 1, ...empty };
}

/** @param {HTMLCanvasElement} canvas */
function shrink(canvas) {
  const small = document.createElement("canvas");
  const scale = THUMB / Math.max(canvas.width, canvas.height);
  [small.width, small.height] = [canvas.width, canvas.height].map((side) => Math.max(1, Math.round(scale * side)));
  const context = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d"));
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, 0, 0, small.width, small.height);
  return small;
}
