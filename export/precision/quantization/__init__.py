"""Makes int8 and fp8 files from calibration images; measurements choose, and every layer that stays float has a reason.

calibrate.py           step `calibrate`: one form's activations, observed once for every variant of it
calibration.py         observes activations on images
thresholds.py          ranges from histograms
schemes.py             CPU and TensorRT, int8 and fp8, as one shape
qdq.py                 Q/DQ for CPUs
placement_trt.py       where Q/DQ goes for TensorRT
qdq_trt.py             Q/DQ for TensorRT, int8 and fp8
quantize.py            makes the files; the tuning split's metric chooses
candidates.py          tries files on the tuning split
equal_scales.py        lets equal LayerNorm scales compete
sensitivity.py         how much each layer's quantization disturbs the network
accuracy_control.py    gives sensitive layers back to float
policy_search.py       finds blocks that are better left float on this machine
policy_measurement.py  measures blocks and policies
"""
