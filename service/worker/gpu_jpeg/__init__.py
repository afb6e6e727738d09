"""Decoding JPEGs on a GPU, where that is measured to be faster than the CPU's image threads.

- decoder.py: the seam, and decoding with nvImageCodec and our kernels behind it
- nvimagecodec.py: the library that decodes
- resize.cu, kernels.py, launcher.py: the two passes of the resize, compiled by NVRTC and launched
- memory.py: device and pinned memory that grows
- cpu_stand_in.py: the seam on the CPU path's code, for the fake backend
- self_check.py: measures a device's decoder against the CPU path: pixels, manners, speed
- choice.py: which decoder serves; pure
- selection.py: opens, measures and keeps a worker's decoders
"""
