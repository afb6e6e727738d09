"""Parts of the TensorRT backend; pure functions decide what can be decided without a device.

`module.py` finds TensorRT and keeps what it logs; `engine.py`
opens a plan and compares its tensors with the manifest; `capture.py` decides which batch sizes run as CUDA graphs;
`contexts.py` runs the batches that `service/backends/cuda/lanes.py` holds; `sized_outputs.py` gives memory to outputs
whose shape depends on the data; `kernel_cache.py` keeps the kernels that TensorRT for RTX compiled.
"""
