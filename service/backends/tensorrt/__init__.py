"""Parts of the TensorRT backend. Promises: what can be decided without a device is decided by pure functions.

`module.py` finds TensorRT and keeps what it logs; `plan_checks.py` refuses plans before they are opened; `engine.py`
opens one and compares its tensors with the manifest; `buffers.py` plans memory; `capture.py` decides on CUDA graphs.
`lanes.py` holds buffers, streams and events of one batch in flight, `contexts.py` what runs it; `sized_outputs.py` is
for outputs whose shape depends on the data.
"""
