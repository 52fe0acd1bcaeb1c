/** Work that waits for its turn: so much at a time, the urgent first. */

/** @typedef {{run: () => Promise<void>, urgent: boolean}} Job */

export class Queue {
  /** @param {number} most how many jobs run at a time */
  constructor(most) {
    this.most = most;
    this.running = 0;
    /** @type {Job[]} */
    this.waiting = [];
  }

  /**
   * Return what a job returns once its turn has come.
   * @template T
   * @param {() => Promise<T>} work
   * @param {{urgent?: boolean}} [options]
   * @returns {Promise<T>}
   */
  add(work, { urgent = false } = {}) {
    return new Promise((resolve, reject) => {
      const job = { urgent, run: () => work().then(resolve, reject) };
      const place = urgent ? this.waiting.findIndex((other) => !other.urgent) : -1;
      if (place < 0) this.waiting.push(job);
      else this.waiting.splice(place, 0, job);
      this.advance();
    });
  }

  advance() {
    while (this.running < this.most && this.waiting.length > 0) {
      const job = /** @type {Job} */ (this.waiting.shift());
      this.running += 1;
      job.run().finally(() => {
        this.running -= 1;
        this.advance();
      });
    }
  }
}
