"""Decoding JPEGs on a GPU, where that is measured to be faster than the CPU's image threads.

- taps.py: which source pixels an output pixel is made of; pure
- resize_plan.py: what the resize kernels get for one batch; pure
- resize.cu: the two passes of the resize
- kernels.py: compiles them with NVRTC
"""
