"""Traces of requests, by OpenTelemetry: an extra that is imported only where an endpoint for them is named.

    setup.py           whether there are traces, from the standard variables OTEL_*
    request_trace.py   what is noted of a request while it lives
    recorder.py        which requests are traced, and when their spans leave
    spans.py           makes spans of what a request knew of itself when it ended

`service/api/http/traced_endpoint.py` begins and ends them.
"""
