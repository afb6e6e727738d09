// Where images come from: files, drops, the clipboard, the camera, the model's own. Promises: one way in for all.

import { closeCamera, openCamera, pictureOf } from "./camera.js";

const byId = (id) => document.getElementById(id);

/** Wires every source of the page to `takeImages`; `page` has the functions named below. */
export function wireSources({ takeImages, takeSamples, takeDisagreements, takeSample, showProblem, hasImages }) {
  const orProblem = (act) => () => act().catch(showProblem);

  function showCamera(isOpen) {
    byId("camera-frame").hidden = !isOpen;
    byId("prompt").hidden = isOpen || hasImages();
    byId("canvas-frame").hidden = isOpen || !hasImages();
  }

  async function useCamera() {
    await openCamera(byId("video"));
    showCamera(true);
    byId("shoot").focus();
  }

  function leaveCamera() {
    closeCamera(byId("video"));
    showCamera(false);
    byId("camera").focus();
  }

  async function shoot() {
    const file = await pictureOf(byId("video"));
    leaveCamera();
    await takeImages([file]);
  }

  for (const id of ["choose", "prompt"]) byId(id).addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", async (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file can be chosen again
    await takeImages(files);
  });
  byId("samples").addEventListener("click", orProblem(takeSamples));
  byId("disagreements").addEventListener("click", orProblem(takeDisagreements));
  byId("sample").addEventListener("click", orProblem(takeSample));
  byId("camera").addEventListener("click", orProblem(useCamera));
  byId("shoot").addEventListener("click", orProblem(shoot));
  byId("camera-off").addEventListener("click", leaveCamera);
  byId("camera-frame").addEventListener("keydown", (event) => event.key === "Escape" && leaveCamera());

  // The whole window takes drops: an image dropped beside the frame would replace the page.
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").classList.add("is-over");
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop").classList.remove("is-over");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").classList.remove("is-over");
    takeImages([...(event.dataTransfer?.files ?? [])]);
  });
  window.addEventListener("paste", (event) => takeImages([...(event.clipboardData?.files ?? [])]));
}
