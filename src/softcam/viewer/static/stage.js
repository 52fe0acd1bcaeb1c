/** A canvas that shows an image and what lies on it, in one frame of reference: pixels of the original. */

// The library is a script of its own, which sets this.
const d3Library = /** @type {any} */ (globalThis).d3;

/** @typedef {import("./geometry.js").Rectangle} Rectangle */
/** @typedef {import("./geometry.js").Point} Point */
/** @typedef {{k: number, x: number, y: number}} Transform */

const MARGIN = 16;
const HEAD = 44; // room for the title above the image
const CRISP_FROM = 2; // screen pixels per image pixel

export class Stage {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} redraw
   */
  constructor(canvas, redraw) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {Transform} */
    this.transform = { k: 1, x: 0, y: 0 };
    this.size = { width: 1, height: 1 };
    this.image = { width: 1, height: 1 };
    this.ratio = 1;
    new ResizeObserver(() => this.resize(redraw)).observe(canvas);
  }

  /** @param {() => void} redraw */
  resize(redraw) {
    const { clientWidth, clientHeight } = this.canvas;
    if (clientWidth === 0 || clientHeight === 0) return;
    this.ratio = window.devicePixelRatio || 1;
    this.size = { width: clientWidth, height: clientHeight };
    this.canvas.width = Math.round(clientWidth * this.ratio);
    this.canvas.height = Math.round(clientHeight * this.ratio);
    redraw();
  }

  /** Screen pixels per pixel of the original before any zoom, and where the image then begins. */
  get base() {
    const room = { width: this.size.width - 2 * MARGIN, height: this.size.height - MARGIN - HEAD };
    const scale = Math.max(1e-6, Math.min(room.width / this.image.width, room.height / this.image.height));
    return {
      scale,
      x: (this.size.width - scale * this.image.width) / 2,
      y: (this.size.height + HEAD - MARGIN - scale * this.image.height) / 2,
    };
  }

  /** Screen pixels per pixel of the original. */
  get scale() {
    return this.base.scale * this.transform.k;
  }

  /** @param {Point} point in the original @returns {Point} in the canvas */
  toScreen({ x, y }) {
    const { scale, x: left, y: top } = this.base;
    const { k, x: tx, y: ty } = this.transform;
    return { x: (x * scale + left) * k + tx, y: (y * scale + top) * k + ty };
  }

  /** @param {Point} point in the canvas @returns {Point} in the original */
  toImage({ x, y }) {
    const { scale, x: left, y: top } = this.base;
    const { k, x: tx, y: ty } = this.transform;
    return { x: ((x - tx) / k - left) / scale, y: ((y - ty) / k - top) / scale };
  }

  /** @param {Rectangle} rectangle in the original @returns {Rectangle} in the canvas */
  place(rectangle) {
    const start = this.toScreen(rectangle);
    return {
      ...start,
      width: rectangle.width * this.scale,
      height: rectangle.height * this.scale,
    };
  }

  /** Begin a drawing. @param {{width: number, height: number}} image size of the original */
  clear(image) {
    this.image = { width: image.width, height: image.height };
    this.canvas.dataset.frame = JSON.stringify({ ...this.toScreen({ x: 0, y: 0 }), scale: this.scale });
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.context.clearRect(0, 0, this.size.width, this.size.height);
  }

  /**
   * Draw a picture over a part of the original; `crisp` keeps the edges of its pixels.
   * @param {CanvasImageSource & {width: number}} picture
   * @param {Rectangle} rectangle
   * @param {boolean} [crisp]
   */
  drawPicture(picture, rectangle, crisp) {
    const { x, y, width, height } = this.place(rectangle);
    this.context.imageSmoothingEnabled = !(crisp ?? width / picture.width > CRISP_FROM);
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(picture, x, y, width, height);
  }

  /** @param {Rectangle} rectangle @param {string} color */
  fillRectangle(rectangle, color) {
    const { x, y, width, height } = this.place(rectangle);
    this.context.fillStyle = color;
    this.context.fillRect(x, y, width, height);
  }

  /** Run a drawing that is cut to a part of the original. @param {Rectangle} rectangle @param {() => void} draw */
  clipped(rectangle, draw) {
    const { x, y, width, height } = this.place(rectangle);
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
    draw();
    this.context.restore();
  }

  /**
   * Draw a line that is seen on any ground: light with a dark edge.
   * @param {Path2D} path
   * @param {{color?: string, width?: number, dash?: number[]}} [style]
   */
  outline(path, { color = "#fff", width = 1.5, dash = [] } = {}) {
    const { context } = this;
    context.save();
    context.lineJoin = "round";
    context.setLineDash(dash);
    context.strokeStyle = "rgb(0 0 0 / 65%)";
    context.lineWidth = width + 2;
    context.stroke(path);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke(path);
    context.restore();
  }

  /** @param {Rectangle} rectangle */
  rectanglePath(rectangle) {
    const { x, y, width, height } = this.place(rectangle);
    const path = new Path2D();
    path.rect(x, y, width, height);
    return path;
  }

  /** @param {Point[]} points in the original */
  linePath(points) {
    const path = new Path2D();
    points.map((point) => this.toScreen(point)).forEach(({ x, y }, i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
    return path;
  }

  /**
   * Return the border of cells.
   * @param {number[]} cells
   * @param {[number, number]} grid
   * @param {(row: number, column: number) => Rectangle} locate
   */
  cellsPath(cells, [, columns], locate) {
    const inside = new Set(cells);
    const path = new Path2D();
    for (const cell of cells) {
      const column = cell % columns;
      const { x, y, width, height } = this.place(locate((cell - column) / columns, column));
      const line = (/** @type {number[]} */ [x0, y0, x1, y1]) => {
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      };
      if (!inside.has(cell - columns)) line([x, y, x + width, y]);
      if (!inside.has(cell + columns)) line([x, y + height, x + width, y + height]);
      if (column === 0 || !inside.has(cell - 1)) line([x, y, x, y + height]);
      if (column === columns - 1 || !inside.has(cell + 1)) line([x + width, y, x + width, y + height]);
    }
    return path;
  }

  /** @param {string} text @param {Point} point in the original */
  label(text, point) {
    const { x, y } = this.toScreen(point);
    const { context } = this;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = "rgb(0 0 0 / 75%)";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }
}

/**
 * Let a stage be moved and zoomed by wheel, pinch and drag.
 * @param {Stage} stage
 * @param {(event: any) => boolean} mayMove whether a drag moves the image
 * @param {(transform: Transform) => void} moved
 */
export function createZoom(stage, mayMove, moved) {
  const zoom = d3Library
    .zoom()
    .scaleExtent([0.5, 60])
    .filter((/** @type {any} */ event) => event.type === "wheel" || mayMove(event))
    .on("zoom", (/** @type {any} */ event) => {
      const { k, x, y } = event.transform;
      moved({ k, x, y });
    });
  const selection = d3Library.select(stage.canvas).call(zoom).on("dblclick.zoom", null);
  return {
    /** @param {number} factor */
    by: (factor) => zoom.scaleBy(selection, factor),
    /** @param {number} dx @param {number} dy in the canvas */
    pan: (dx, dy) => zoom.translateBy(selection, dx / stage.transform.k, dy / stage.transform.k),
    fit: () => zoom.transform(selection, d3Library.zoomIdentity),
  };
}
