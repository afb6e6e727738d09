"""From a network to a deploy graph in ONNX, and the proof that both answer alike."""
