"""Reads config.pbtxt by the proto that Triton publishes."""

from __future__ import annotations

from typing import Any

import pytest


def parsed(text: str) -> Any:
    """A ModelConfig. Raises text_format.ParseError for unknown fields and wrong types."""
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(text, model_config_pb2.ModelConfig())
