"""The Open Inference Protocol v2 over gRPC: each call becomes a request to the HTTP endpoints, in this process.

`messages.py` has the protocol's messages, `calls.py` translates, `streams.py` answers many requests of one call,
`server.py` listens. Imported only where a port is set.
"""
