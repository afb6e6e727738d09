"""Converts a network to a deploy graph in ONNX and proves that both answer alike."""
