"""Triton: a Python backend that calls ONNX Runtime, behind Triton's own dynamic batcher; JPEG bytes in, JSON out."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from network import Network, pixels_of


class TritonPythonModel:
    def initialize(self, args):
        self.network = Network()

    def execute(self, requests):
        pictures, refused = [], {}
        for index, request in enumerate(requests):
            jpeg = pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)[0]
            try:
                pictures.append(pixels_of(jpeg))
            except (ValueError, OSError) as error:  # one bad picture must not fail the others
                refused[index] = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        answers = iter(self.network.answers(pictures) if pictures else ())
        return [
            pb_utils.InferenceResponse(error=refused[index]) if index in refused else _response(next(answers))
            for index in range(len(requests))
        ]


def _response(answer):
    text = np.array([[json.dumps(answer).encode()]], dtype=object)
    return pb_utils.InferenceResponse([pb_utils.Tensor("answer", text)])
