/* The search runs in a worker, which browsers refuse to pages that are opened as files. There it runs in a frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      addEventListener("message", (event) => {
        if (event.source !== this.scope) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      this.ready = this.start(frame.contentDocument, String(address));
    }

    async start(page, address) {
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = page.createElement("script");
          Object.assign(script, { src: source, onload: resolve, onerror: reject });
          page.body.append(script);
        });
      /* A frame's own postMessage would send to itself. */
      this.scope.postMessage = (data) => parent.postMessage.call(window, data, "*");
      this.scope.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(new URL(source, address))), Promise.resolve());
      await load(address);
    }

    postMessage(data) {
      this.ready.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.scope.frameElement.remove();
    }
  };
}
