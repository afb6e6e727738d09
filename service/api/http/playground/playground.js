// The page's story: know the models, take images, ask, show the answer. Promises: keys and images stay in memory.

import { disagreementsOf, listModels, metricsText, predict, ProblemError, readiness, reportFile, samplesOf } from "./api.js";
import { differencesOf } from "./compare.js";
import { drawScene, maskDifference, maskLayers, sampleImage } from "./drawing.js";
import { linePoints, wireLoad } from "./load.js";
import {
  differenceTable, element, loadFigures, modelChoices, problemCard, resultRows, sampledVersion, summaryOf, targetChoices,
  timingPanel, versionFigures,
} from "./panels.js";
import { bitmapOf, fitBitmap } from "./pictures.js";
import { ASKED_THRESHOLDS, requestOf, targetOf, threshold } from "./request.js";
import { copyText, curlCommand, pythonProgram } from "./snippets.js";
import { wireSources } from "./sources.js";

const MODELS_POLL_MS = 5000;
const RAW_SHOWN_CHARACTERS = 200_000; // a browser lays out more only slowly; curl gives all of it

const byId = (id) => document.getElementById(id);

const state = {
  models: [],
  modelName: null,
  images: [], // {file, url, bitmap}; bitmap is null for a file this browser cannot show
  current: 0,
  answer: null, // {document, ask, roundTripMs, layersByImage}
  rival: null, // another version's {document, layersByImage}, or {problem}
  highlight: null,
  asking: null, // AbortController of the request on its way
};

// --- models -------------------------------------------------------------------------------------------------------

async function refreshModels() {
  const { status, reason } = await readiness();
  byId("server-state").className = `server-state is-${status}`;
  setText(byId("server-state"), status === "ok" ? "ready" : reason);
  try {
    const { models } = await listModels(byId("key").value);
    if (byId("problem").dataset.from === "models") showProblem(null);
    if (JSON.stringify(models) !== JSON.stringify(state.models)) showModels(models);
  } catch (error) {
    showProblem(error, "models");
  }
}

function showModels(models) {
  state.models = models;
  if (!currentModel()) state.modelName = models[0]?.name ?? null;
  const focusedId = document.activeElement?.id;
  byId("models").replaceChildren(
    ...(models.length
      ? modelChoices(models, state.modelName, chooseModel)
      : [element("p", { class: "empty" }, "The model repository holds no model yet.")]),
  );
  if (focusedId?.startsWith("model-")) byId(focusedId)?.focus();
  showModel();
}

function chooseModel(name) {
  state.modelName = name;
  byId("target").value = "policy:";
  byId("rival").value = "";
  showModel();
  ask();
}

function showModel() {
  const model = currentModel();
  const chosen = byId("target").value;
  const choices = model ? targetChoices(model) : [];
  byId("target").replaceChildren(
    ...choices.map(({ value, text, isReady }) => element("option", { value, disabled: !isReady }, text)),
  );
  byId("target").value = choices.some(({ value, isReady }) => isReady && value === chosen) ? chosen : "policy:";
  showRivals(choices.filter(({ value, isReady }) => isReady && value !== "policy:"));
  byId("figures").replaceChildren(...(model ? versionFigures(model, openReport) : []));
  byId("target-field").hidden = byId("figures-fold").hidden = !model;
  for (const field of document.querySelectorAll("[data-task]")) {
    field.hidden = !field.dataset.task.split(" ").some((task) => [model?.task, "any"].includes(task));
  }
  for (const kind of ["explain", "trust"]) {
    byId(`${kind}-field`).hidden = !model?.versions.some(({ gives }) => gives.includes(kind));
  }
  // The sample shows digits; a model of anything else has nothing to say about it.
  const hasSamples = model ? sampledVersion(model, byId("target").value) !== null : false;
  byId("samples").hidden = !hasSamples;
  byId("disagreements").hidden = !model?.serving?.shadow;
  byId("sample").hidden = hasSamples || ![..."0123456789"].every((digit) => model?.class_labels.includes(digit));
  showSendButton();
}

function showRivals(choices) {
  const chosen = byId("rival").value;
  const nobody = element("option", { value: "" }, "nothing");
  byId("rival").replaceChildren(nobody, ...choices.map(({ value, text }) => element("option", { value }, text)));
  byId("rival").value = choices.some(({ value }) => value === chosen) ? chosen : "";
  byId("rival-field").hidden = choices.length < 2;
}

/** A link cannot send the key, so with one the report becomes a file. */
async function openReport(version, event) {
  const key = byId("key").value;
  if (!key) return;
  event.preventDefault();
  try {
    const url = URL.createObjectURL(await reportFile(state.modelName, version, key));
    element("a", { href: url, download: `${state.modelName}-${version}.html` }).click();
    setTimeout(() => URL.revokeObjectURL(url), MODELS_POLL_MS);
  } catch (error) {
    showProblem(error, "report");
  }
}

function currentModel() {
  return state.models.find((model) => model.name === state.modelName);
}

// --- images -------------------------------------------------------------------------------------------------------

async function takeImages(files) {
  if (files.length === 0) return;
  const images = await Promise.all(files.map(imageOf));
  const previous = state.images;
  state.images = images;
  state.current = 0;
  forgetAnswer();
  for (const { url, bitmap } of previous) {
    URL.revokeObjectURL(url);
    bitmap?.close();
  }
  byId("prompt").hidden = true;
  byId("canvas-frame").hidden = byId("view").hidden = false;
  showImages();
  ask();
}

async function imageOf(file) {
  return { file, url: URL.createObjectURL(file), bitmap: await bitmapOf(file) };
}

function showImages() {
  byId("thumbnails").hidden = state.images.length < 2;
  byId("thumbnails").replaceChildren(
    ...state.images.map(({ file, url, bitmap }, index) => {
      const hasFailed = Boolean(state.answer?.document.predictions[index]?.error);
      const button = element(
        "button",
        {
          type: "button",
          class: hasFailed ? "thumbnail has-failed" : "thumbnail",
          "aria-pressed": String(index === state.current),
          "aria-label": `Image ${index + 1}: ${file.name}${hasFailed ? ", failed" : ""}`,
          title: file.name,
          onclick: () => showImage(index),
        },
        bitmap ? element("img", { src: url, alt: "" }) : element("span", {}, "?"),
      );
      return element("li", {}, button);
    }),
  );
  showSendButton();
  showScene();
}

function showImage(index) {
  state.current = index;
  state.highlight = null;
  [...byId("thumbnails").querySelectorAll("button")].forEach((button, position) => {
    button.setAttribute("aria-pressed", String(position === index));
  });
  showAnswer();
}

function showSendButton() {
  byId("send").disabled = state.images.length === 0 || !currentModel();
  byId("choose").textContent = state.images.length ? "Other images" : "Choose images";
}

// --- asking -------------------------------------------------------------------------------------------------------

async function ask() {
  const model = currentModel();
  if (!model || state.images.length === 0) return;
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  setBusy(true);
  try {
    const request = requestOf(model, state.images.map(({ file }) => file));
    const rival = byId("rival").value;
    const [answer, other] = await Promise.all([
      answerTo(request, asking.signal),
      rival ? answerTo({ ...request, target: targetOf(model, rival) }, asking.signal).catch((problem) => ({ problem })) : null,
    ]);
    if (asking.signal.aborted) return;
    await Promise.all(
      answer.document.predictions.map((prediction, index) => fitBitmap(state.images[index], prediction)),
    );
    if (asking.signal.aborted) return;
    state.answer = answer;
    state.rival = other;
    state.highlight = null;
    showProblem(null);
    showImages();
    showAnswer();
    byId("announcement").textContent = summaryOf(currentPrediction(), threshold());
  } catch (error) {
    if (asking.signal.aborted) return;
    forgetAnswer();
    showProblem(error, "predict");
  } finally {
    if (state.asking === asking) setBusy(false);
  }
}

async function answerTo(request, signal) {
  const { answer, roundTripMs } = await predict(request, byId("key").value, signal);
  const layersByImage = await Promise.all(answer.predictions.map(maskLayers));
  return { document: answer, ask: request, roundTripMs, layersByImage };
}

function setBusy(isBusy) {
  byId("drop").setAttribute("aria-busy", String(isBusy));
  byId("send").textContent = isBusy ? "Predicting…" : "Predict";
}

// --- showing ------------------------------------------------------------------------------------------------------

function currentPrediction() {
  return state.answer?.document.predictions[state.current] ?? null;
}

function forgetAnswer() {
  state.answer = state.rival = null;
  state.highlight = null;
  byId("answer").hidden = byId("reproduce").hidden = true;
  showScene();
}

function showScene() {
  const image = state.images[state.current];
  if (!image) return;
  const prediction = currentPrediction();
  byId("canvas").hidden = !image.bitmap;
  byId("no-preview").hidden = Boolean(image.bitmap);
  byId("no-preview").textContent = `This browser cannot show ${image.file.name}.`;
  byId("canvas").setAttribute("aria-label", `${image.file.name}. ${summaryOf(prediction, threshold())}`);
  const rival = rivalPrediction();
  byId("rival-figure").hidden = byId("caption").hidden = !image.bitmap || rival === null;
  if (!image.bitmap) return;
  const layers = [state.answer, state.rival].map((answer) => answer?.layersByImage?.[state.current] ?? []);
  const view = {
    room: { width: byId("canvas-frame").clientWidth / (rival ? 2 : 1), height: Math.max(260, window.innerHeight * 0.62) },
    threshold: threshold(),
    opacity: Number(byId("opacity").value),
    split: Number(byId("split").value),
    highlight: state.highlight,
  };
  if (!rival) return drawScene(byId("canvas"), image.bitmap, prediction, layers[0], view);
  const { marked } = differencesOf(prediction, rival, threshold());
  const difference = maskDifference([prediction, rival], layers);
  drawScene(byId("canvas"), image.bitmap, prediction, layers[0], { ...view, marked: marked[0], difference });
  drawScene(byId("rival-canvas"), image.bitmap, rival, layers[1], { ...view, highlight: null, marked: marked[1], difference });
  [byId("caption").textContent, byId("rival-caption").textContent] = versionNames();
  byId("rival-canvas").setAttribute("aria-label", `${versionNames()[1]}: ${summaryOf(rival, threshold())}`);
}

function rivalPrediction() {
  return currentPrediction() && (state.rival?.document?.predictions[state.current] ?? null);
}

function versionNames() {
  return [state.answer, state.rival].map(({ document: { version, variant } }) => `version ${version}, ${variant}`);
}

function showDifferences() {
  const rival = rivalPrediction();
  byId("differences").hidden = state.rival === null;
  if (state.rival?.problem) return byId("differences").replaceChildren(problemCard(problemOf(state.rival.problem)));
  if (rival === null) return;
  const found = differencesOf(currentPrediction(), rival, threshold());
  byId("differences").replaceChildren(...differenceTable(versionNames(), found, state.current + 1));
}

function showAnswer() {
  showScene();
  if (!state.answer) return;
  const { document: answer, ask: request, roundTripMs } = state.answer;
  byId("answer").hidden = byId("reproduce").hidden = false;
  byId("answer-source").textContent = `${answer.model}, version ${answer.version}, ${answer.variant} · request ${answer.request_id}`;
  showResults();
  byId("timings").replaceChildren(...timingPanel(answer.timings_ms, roundTripMs, request.files.length));
  showRaw();
}

function showResults() {
  const prediction = currentPrediction();
  if (!prediction) return;
  byId("results").replaceChildren(...resultRows(prediction, { threshold: threshold(), onHighlight: highlight, others: state.answer.document.predictions }));
  const { quality } = prediction;
  byId("quality").textContent = quality ? [`Picture quality ${Math.round(100 * quality.score)} %`, ...quality.reasons].join("; ") : "";
  const { ask: request } = state.answer;
  const asShown = request.task in ASKED_THRESHOLDS ? { score_threshold: byId("threshold").value } : {};
  const shown = { ...request, parameters: { ...request.parameters, ...asShown } };
  const written = byId("language").value === "python" ? pythonProgram : curlCommand;
  byId("curl").textContent = written(document.baseURI, shown, byId("key").value !== "");
  showDifferences();
}

function showRaw() {
  if (!byId("raw-fold").open || !state.answer) return;
  const text = JSON.stringify(state.answer.document, null, 2);
  byId("raw").textContent = text.slice(0, RAW_SHOWN_CHARACTERS);
  const notes = [];
  const asked = ASKED_THRESHOLDS[state.answer.ask.task];
  if (asked !== undefined) notes.push(`The page asks with score_threshold=${asked} and filters by itself.`);
  if (text.length > RAW_SHOWN_CHARACTERS) notes.push("Cut here; the curl command gives all of it.");
  byId("raw-help").textContent = notes.join(" ");
}

function highlight(index) {
  state.highlight = index;
  showScene();
}

function showProblem(error, from = "") {
  byId("problem").dataset.from = from;
  if (error === null) return byId("problem").replaceChildren();
  const card = problemCard(problemOf(error));
  // The models are asked for again and again; saying the same again would be read aloud each time.
  if (card.textContent !== byId("problem").textContent) byId("problem").replaceChildren(card);
}

function problemOf(error) {
  return error instanceof ProblemError ? error.problem : { title: "This did not work", detail: error.message };
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showSliders() {
  byId("threshold-value").textContent = threshold().toFixed(2);
  byId("opacity-value").textContent = `${Math.round(byId("opacity").value * 100)} %`;
}

// --- wiring -------------------------------------------------------------------------------------------------------

async function takeSamples() {
  const model = currentModel();
  await takeImages(await samplesOf(model.name, sampledVersion(model, byId("target").value), byId("key").value));
}

async function takeDisagreements() {
  const { stable, candidate, files } = await disagreementsOf(state.modelName, byId("key").value);
  byId("target").value = `version:${stable}`;
  byId("rival").value = `version:${candidate}`;
  await takeImages(files);
}

async function takeSample() {
  await takeImages([await sampleImage(currentModel()?.task === "classify" ? 1 : 6)]);
}

function wire() {
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["target", "rival", "top-k", "max-detections", "mask-format", "explain", "trust", "deadline"]) byId(id).addEventListener("change", ask);
  byId("key").addEventListener("change", async () => {
    await refreshModels();
    ask();
  });
  byId("threshold").addEventListener("input", () => {
    showSliders();
    showScene();
    showResults();
  });
  byId("opacity").addEventListener("input", () => {
    showSliders();
    showScene();
  });
  byId("split").addEventListener("input", showScene);
  wireLoad(byId("load-fold"), () => metricsText(byId("key").value), (load, rates) => {
    byId("load").replaceChildren(...loadFigures(load));
    byId("load-line").setAttribute("points", linePoints(rates));
  });
  byId("language").addEventListener("change", showResults);
  byId("send").addEventListener("click", ask);
  byId("copy").addEventListener("click", () => copyText(byId("curl"), byId("copy")));
  byId("raw-fold").addEventListener("toggle", showRaw);

  wireSources({ takeImages, takeSamples, takeDisagreements, takeSample, showProblem: (error) => showProblem(error, "source"), hasImages: () => state.images.length > 0 });
  new ResizeObserver(showScene).observe(byId("drop"));
}

async function pollModels() {
  if (!document.hidden) await refreshModels();
  setTimeout(pollModels, MODELS_POLL_MS);
}

wire();
// Beside the image there is room; on a phone the image comes first.
byId("figures-fold").open = byId("parameters-fold").open = matchMedia("(min-width: 821px)").matches;
showSliders();
showModel();
pollModels();
