"""Whether requests are traced, by OpenTelemetry's own variables. Promises: nothing is imported where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from saccade.service.api.tracing.recorder import TraceRecorder

log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_SERVICE = "saccade"  # unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says otherwise


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether an endpoint is named, and traces are not switched off."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporters = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return not is_off and "otlp" in exporters and any(environment.get(name) for name in _ENDPOINTS)


def recorder_from(environment: Mapping[str, str], count: Callable[[int, int], None]) -> TraceRecorder | None:
    """The recorder that the environment asks for; None without. What cannot be had is logged, and serving goes on.

    OpenTelemetry reads its variables itself: `environment` must be that of this process.
    """
    if not is_asked_for(environment):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.warning("tracing_unavailable", reason=f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only {_PROTOCOL} is sent")
        return None
    try:  # late: an extra, and 20 MB that most servers do not need
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from saccade.service.api.tracing.recorder import TraceRecorder
        from saccade.service.api.tracing.spans import SpanMaker
    except ImportError as error:
        log.warning("tracing_unavailable", reason=str(error), change="pip install 'saccade-serving[tracing]'")
        return None
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: _SERVICE}))
    try:
        processor = BatchSpanProcessor(OTLPSpanExporter())
    except (OSError, ValueError) as error:  # such as OTEL_BSP_* that contradict each other, or a missing certificate
        log.warning("tracing_unavailable", reason=str(error))
        return None
    sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler  # by OTEL_TRACES_SAMPLER
    log.info("tracing", service=resource.attributes.get(SERVICE_NAME))
    return TraceRecorder(sampler, SpanMaker(resource, processor), count)
