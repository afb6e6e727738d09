"""What is noted of one traced request: numbers and names, never pictures or answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saccade.service.api.predictor import ImageAnswer, Ran
from saccade.service.core import VersionKey

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

TRACE_SCOPE = "saccade.trace"  # where the trace of a request stands in its ASGI scope; absent without one


class RequestTrace:
    """Filled in while the request lives; times are `time.perf_counter`, in seconds."""

    __slots__ = (
        "context",
        "encoding_s",
        "end_s",
        "error",
        "images",
        "method",
        "model",
        "parent",
        "path",
        "request_id",
        "route",
        "start_s",
        "status",
        "variant",
        "version",
    )

    def __init__(self, context: SpanContext, parent: SpanContext | None, start_s: float) -> None:
        self.context = context  # of the span of the whole request
        self.parent = parent  # the client's span
        self.start_s = start_s
        self.end_s = start_s
        self.status = 0  # of the answer; 0: there was none
        self.request_id = self.method = self.path = self.route = ""
        self.model = self.version = self.variant = self.error = ""
        self.images: list[Ran | None] = []
        self.encoding_s = (0.0, 0.0)  # start and end of making the answer's bytes

    def answered(self, key: VersionKey, answers: Sequence[ImageAnswer], encode_s: float, encoded_s: float) -> None:
        """Notes how the images were answered."""
        self.model, self.version = key.model, str(key.version)
        self.variant = answers[0].variant
        self.images = [answer.ran for answer in answers]
        self.encoding_s = (encode_s, encoded_s)

    def failed(self, key: VersionKey | None, error: Exception) -> None:
        """Notes why the whole request was refused or failed."""
        if key is not None:
            self.model, self.version = key.model, str(key.version)
        self.error = type(error).__name__
