"""Reads and rewrites ONNX graphs."""
