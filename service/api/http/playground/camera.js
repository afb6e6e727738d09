// A picture from the camera. Promises: the camera is on only while its picture is shown, and nothing is recorded.

let stream = null;

/** Shows the camera in `video`. Throws where there is none, it is refused, or the page is not served securely. */
export async function openCamera(video) {
  if (!navigator.mediaDevices) throw new Error("Browsers give cameras only to pages from this machine or over HTTPS.");
  stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 1280 } });
  video.srcObject = stream;
  await video.play();
}

export function closeCamera(video) {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
}

/** What `video` shows now, as a JPEG file. */
export async function pictureOf(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}
