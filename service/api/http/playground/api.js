// Talks to the server. Promises: every failure is a ProblemError; the key leaves only in the Authorization header.

const SHOWN_DISAGREEMENTS = 8; // at once, within the images of one request
const RAW_TYPES = ["image/jpeg", "image/png", "image/webp", "image/bmp"];

/** A problem document (RFC 9457), from the server or made here when there was no answer. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

export function listModels(key) {
  return fetchJson("v1/models", { headers: authorization(key), cache: "no-store" });
}

/** The server's metrics as Prometheus reads them. */
export async function metricsText(key) {
  const response = await fetch("metrics", { headers: authorization(key), cache: "no-store" });
  if (!response.ok) throw new Error(`metrics: ${response.status}`);
  return response.text();
}

/** Readiness with its reason; 503 is an answer here, not a failure. */
export async function readiness() {
  try {
    const response = await fetch("health/ready", { cache: "no-store" });
    return await response.json();
  } catch {
    return { status: "unreachable", reason: "the server does not answer" };
  }
}

/** The answer document and the time it took to arrive, in milliseconds. */
export async function predict(ask, key, signal) {
  const headers = authorization(key);
  let body;
  if (ask.files.length === 1) {
    body = ask.files[0];
    headers["Content-Type"] = contentTypeOf(body);
  } else {
    body = new FormData();
    for (const file of ask.files) body.append("image", file, file.name);
  }
  const startMs = performance.now();
  const answer = await fetchJson(predictPath(ask.target, ask.parameters), { method: "POST", headers, body, signal });
  return { answer, roundTripMs: performance.now() - startMs };
}

/** Relative to the page, which may lie behind a prefix; `target` is {model, kind: "policy" | "label" | "version", name}. */
export function predictPath(target, parameters) {
  const within = { policy: "", label: "/labels/", version: "/versions/" }[target.kind];
  const name = target.kind === "policy" ? "" : encodeURIComponent(target.name);
  const query = new URLSearchParams(parameters).toString();
  return `v1/models/${encodeURIComponent(target.model)}${within}${name}/predict${query ? `?${query}` : ""}`;
}

/** The pictures that travel with a version, as files. */
export async function samplesOf(model, version, key) {
  const { images } = await fetchJson(`${versionPath(model, version)}/samples`, { headers: authorization(key) });
  return images.map(({ b64 }, index) => fileOf(b64, `sample-${index + 1}.png`, "image/png"));
}

/** The pictures on which a shadow disagreed, as {stable, candidate, files}: of the newest pair of versions, worst first. */
export async function disagreementsOf(model, key) {
  const path = `v1/models/${encodeURIComponent(model)}/disagreements`;
  const kept = (await fetchJson(path, { headers: authorization(key) })).filter(({ picture }) => picture);
  if (kept.length === 0) {
    throw new ProblemError({
      title: "No pictures",
      detail: "None was kept: SACCADE_SHADOW_PICTURES=true keeps those on which the shadow disagrees most.",
    });
  }
  const [{ stable, candidate }] = kept;
  const ofPair = kept.filter((each) => each.stable === stable && each.candidate === candidate).slice(0, SHOWN_DISAGREEMENTS);
  const files = ofPair.map(({ picture, stable_said: one, candidate_said: other }) => fileOf(picture.b64, `${one} became ${other}`, ""));
  return { stable, candidate, files };
}

function fileOf(base64, name, type) {
  return new File([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], name, { type });
}

export function reportPath(model, version) {
  return `${versionPath(model, version)}/report`;
}

/** The report as a file for those who have a key: a link cannot send it. */
export async function reportFile(model, version, key) {
  const response = await fetch(reportPath(model, version), { headers: authorization(key) });
  if (!response.ok) throw new ProblemError(await response.json());
  return new File([await response.blob()], `${model}-${version}.html`, { type: "text/html" });
}

function versionPath(model, version) {
  return `v1/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(version)}`;
}

export function contentTypeOf(file) {
  return RAW_TYPES.includes(file.type) ? file.type : "application/octet-stream";
}

function authorization(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function fetchJson(url, options) {
  let response;
  let text;
  try {
    response = await fetch(url, options);
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError({
      title: "No answer",
      detail: `The server could not be reached (${error.message}). Is it still running at ${location.origin}?`,
    });
  }
  const document_ = parsed(text);
  if (response.ok && document_ !== null) return document_;
  throw new ProblemError({
    title: document_?.title ?? (response.statusText || "Unexpected answer"),
    status: document_?.status ?? response.status,
    detail: document_?.detail ?? (text.slice(0, 400) || "The answer was empty."),
    request_id: document_?.request_id ?? response.headers.get("X-Request-Id"),
    retry_after_s: response.headers.get("Retry-After"),
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
