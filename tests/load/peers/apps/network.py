"""What every peer's server has of the network: a picture's pixels, a batch's answers. Runs in the peer's environment.

Promises: the same ONNX file and the same arithmetic as saccade. PEER_DECODE chooses whose decoder makes the pixels:
`saccade` takes this project's own functions, so that servers are compared and not decoders; `pillow` is what a user
would write.
"""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FACTS = json.loads(Path(os.environ["PEER_SUBJECT"]).read_text("utf-8"))
MAX_BATCH_SIZE = 16
PROCESSES = int(os.environ["PEER_PROCESSES"])  # that run the network side by side
THREADS = max(1, len(os.sched_getaffinity(0)) // PROCESSES)
_PILLOW_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _pillow_pixels(jpeg):
    rule = FACTS["preprocess"]
    width, height, edge = rule["width"], rule["height"], rule["shortest_edge"]
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    factor = edge / min(image.size)
    size = [edge if side == min(image.size) else int(side * factor) for side in image.size]
    image = image.resize(size, _PILLOW_FILTERS[rule["resample"]])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _saccade_pixels():
    sys.path.append(os.environ["PEER_PROJECT"])
    from saccade.models.contract.preprocessing import preprocess
    from saccade.models.contract.specs import PreprocessSpec
    from saccade.service.vision.image_decoder import ImageLimits, decode_image

    rule, limits = PreprocessSpec(**FACTS["preprocess"]), ImageLimits()
    return lambda jpeg: preprocess(decode_image(jpeg, limits), rule)


pixels_of = _saccade_pixels() if os.environ.get("PEER_DECODE") == "saccade" else _pillow_pixels


class Network:
    """One ONNX Runtime session, with the runtime's own defaults but for the number of threads."""

    def __init__(self, threads=THREADS):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(FACTS["onnx"], options, providers=["CPUExecutionProvider"])

    def answers(self, pictures):
        """Pictures (h, w, 3) uint8 as one batch; one document each."""
        batch = np.stack(pictures)
        scores, class_ids = self._session.run(["scores", "class_ids"], {FACTS["input"]: batch})
        return [_document(*row) for row in zip(scores.tolist(), class_ids.tolist(), strict=True)]


def _document(scores, class_ids):
    labels, top_k = FACTS["labels"], FACTS["top_k"]
    pairs = zip(class_ids[:top_k], scores[:top_k], strict=True)
    return {"classes": [{"label": labels[each], "class_id": each, "score": round(score, 6)} for each, score in pairs]}
