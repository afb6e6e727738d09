"""Adds outputs to a variant's file that are computed only for requests that ask for them.

marks.py   puts them into the file, which says itself what it gives
make.py    asks each maker for its output, and proves the file with it
trust.py   how unlike its calibration pictures an image is, with `deep_features.py` and `gaussian.py`
explanation.py  where the network looked, with `feature_maps.py`, `token_grid.py` (rows and columns of tokens)
           and `depth.py` (whether a map lies deep enough)
"""
