"""The client: `from saccade.client import Client`. It loads neither a server nor a runtime."""

from saccade.service.client.answers import (
    AnyPrediction,
    Classification,
    DetectedObject,
    Detections,
    Model,
    Prediction,
    ScoredClass,
    Segment,
    Segmentation,
    Served,
    Version,
)
from saccade.service.client.calls import Outcome
from saccade.service.client.clients import KEY_VARIABLE, AsyncClient, Client
from saccade.service.client.errors import (
    ClientError,
    DeadlineExceeded,
    KeyRefused,
    MalformedRequest,
    NoAnswer,
    NotAvailable,
    NotFound,
    Overloaded,
    Problem,
    ServerFailed,
    UnexpectedAnswer,
    Unprocessable,
)
from saccade.service.client.pictures import Picture

__all__ = [
    "KEY_VARIABLE",
    "AnyPrediction",
    "AsyncClient",
    "Classification",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "DetectedObject",
    "Detections",
    "KeyRefused",
    "MalformedRequest",
    "Model",
    "NoAnswer",
    "NotAvailable",
    "NotFound",
    "Outcome",
    "Overloaded",
    "Picture",
    "Prediction",
    "Problem",
    "ScoredClass",
    "Segment",
    "Segmentation",
    "Served",
    "ServerFailed",
    "UnexpectedAnswer",
    "Unprocessable",
    "Version",
]
