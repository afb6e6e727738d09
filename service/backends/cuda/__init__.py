"""CUDA as saccade uses it. Promises: all calls go through one seam, so that they run against a simulated device too.

`driver.py` is the seam; `runtime_driver.py` fills it with cuda-python; `failures.py` says what an error code means.
`buffers.py` plans the memory of batches in flight, `lanes.py` holds it with the streams and events that order them.
"""
