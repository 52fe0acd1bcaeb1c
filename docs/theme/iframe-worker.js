/* The search runs in a worker, which browsers refuse to pages that are opened as files. There it runs in a frame. */
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.scope = this.frame.contentWindow;
      this.ready = this.start(this.frame.contentDocument, String(address));
    }

    async start(page, address) {
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = page.createElement("script");
          Object.assign(script, { src: source, onload: resolve, onerror: reject });
          page.body.append(script);
        });
      /* A frame's own postMessage would send to the frame. */
      this.scope.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })));
      this.scope.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(new URL(source, address))), Promise.resolve());
      await load(address);
    }

    postMessage(data) {
      this.ready.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
