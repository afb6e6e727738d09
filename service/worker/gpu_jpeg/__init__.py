"""Decodes JPEGs on a GPU, where that was measured to be faster than the CPU's image threads.

- decoder.py: the decoder's interface, and its implementation with nvImageCodec and our kernels
- nvimagecodec.py: the library that decodes
- resize.cu, kernels.py, launcher.py: the two passes of the resize, compiled by NVRTC and launched
- memory.py: device and pinned memory that grows as needed
- cpu_stand_in.py: the same interface with the code of the CPU path, for the fake backend
- self_check.py: compares a device's decoder with the CPU path: pixels, handling of bad images, speed
- choice.py: decides which decoder serves
- selection.py: opens, measures and keeps a worker's decoders
"""
