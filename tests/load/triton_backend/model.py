"""Runs the exported graph beside it with ONNX Runtime, as Triton's onnxruntime backend would."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        graph = folder / config["parameters"]["graph"]["string_value"]
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        found = self.session.run(self.outputs, {"images": np.concatenate(images)})
        ends = np.cumsum([len(each) for each in images])[:-1]
        answers = zip(*(np.split(output, ends) for output in found), strict=True)
        return [pb_utils.InferenceResponse([*map(pb_utils.Tensor, self.outputs, answer)]) for answer in answers]
