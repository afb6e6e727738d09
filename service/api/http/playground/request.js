// What the form asks for. Promises: only parameters that apply to the task and were filled in.

import { splitOnce } from "./panels.js";

/** Asked for instead of the slider's value, which then filters without asking again. A mask per object takes time. */
export const ASKED_THRESHOLDS = { detect: "0", "segment-instances": "0.05" };

const byId = (id) => document.getElementById(id);

/** The request for `predict`, with the version that is chosen. */
export function requestOf(model, files) {
  return { task: model.task, target: targetOf(model, byId("target").value), files, parameters: parametersOf(model.task) };
}

/** `choice` is a value of `targetChoices`. */
export function targetOf(model, choice) {
  const [kind, name] = splitOnce(choice);
  return { model: model.name, kind, name };
}

/** The lowest score that is shown. */
export function threshold() {
  return Number(byId("threshold").value);
}

function parametersOf(task) {
  const parameters = {};
  const add = (name, id) => {
    if (byId(id).value !== "") parameters[name] = byId(id).value;
  };
  if (task === "classify") add("top_k", "top-k");
  if (task in ASKED_THRESHOLDS) {
    parameters.score_threshold = ASKED_THRESHOLDS[task];
    add("max_detections", "max-detections");
  }
  if (["segment", "segment-instances"].includes(task)) add("mask_format", "mask-format");
  if (byId("explain").checked && !byId("explain-field").hidden) parameters.explain = "grid";
  if (byId("trust").checked && !byId("trust-field").hidden) parameters.trust = true;
  if (byId("quality-asked").checked && !byId("quality-field").hidden) parameters.quality = true;
  add("deadline_ms", "deadline");
  return parameters;
}
