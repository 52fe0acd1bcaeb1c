/** The service, as the page asks it. */

/** A request that the service refused or that never reached it; the message is for people. */
export class ServiceProblem extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 without an answer
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Facts of every model, and the default one's name. */
export async function fetchModels() {
  const response = await send("v1/models", { headers: { accept: "application/json" } });
  return response.json();
}

/**
 * Explain one file.
 * @param {File} file
 * @param {{model: string, frame: number|null}} options
 */
export async function requestExplanation(file, { model, frame }) {
  const address = locate("v1/explain", { model, frame, preview: true });
  const found = await (await post(address, file)).json();
  const record = Array.isArray(found) ? found[0] : found;
  if (record.status === "failed") throw new ServiceProblem(record.reason, 422);
  return record;
}

/**
 * Ask another method about one file.
 * @param {File} file
 * @param {{model: string, method: string, target: number, frame: number|null}} options
 */
export async function requestAttribution(file, { model, method, target, frame }) {
  return (await post(locate("v1/attribute", { model, method, target, frame }), file)).json();
}

/**
 * Return a ZIP of DICOM objects.
 * @param {File} file
 * @param {{model: string, frame: number|null}} options
 */
export async function requestDicom(file, { model, frame }) {
  const address = `${locate("v1/dicom", { model, frame })}&kinds=map&kinds=report`;
  return (await post(address, file)).blob();
}

/**
 * @param {string} path
 * @param {Record<string, any>} query
 */
function locate(path, query) {
  const known = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  return `${path}?${new URLSearchParams(known.map(([name, value]) => [name, String(value)]))}`;
}

/**
 * @param {string} address
 * @param {File} file
 */
function post(address, file) {
  const body = new FormData();
  // The name may tell a patient's: the service has no use for it.
  body.append("file", file, "image");
  return send(address, { method: "POST", body });
}

/**
 * @param {string} address
 * @param {RequestInit} options
 */
async function send(address, options) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new ServiceProblem("the service cannot be reached", 0);
  }
  if (!response.ok) throw new ServiceProblem(await readProblem(response), response.status);
  return response;
}

/** @param {Response} response */
async function readProblem(response) {
  try {
    const problem = await response.json();
    return String(problem.detail || problem.title || `status ${response.status}`);
  } catch {
    return response.statusText || `status ${response.status}`;
  }
}
