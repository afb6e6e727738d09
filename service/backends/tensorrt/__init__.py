"""Parts of the TensorRT backend. Promises: what can be decided without a device is decided by pure functions.

`module.py` finds TensorRT and keeps what it logs; `plan_checks.py` refuses plans before they are opened; `engine.py`
opens one and compares its tensors with the manifest; `capture.py` decides on CUDA graphs; `contexts.py` runs the
batches that `service/backends/cuda/lanes.py` holds; `sized_outputs.py` is for outputs whose shape depends on the data.
"""
