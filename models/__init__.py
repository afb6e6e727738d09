"""Models: the contract, the data, the reference networks. Promises: the contract and the data never import torch.

    specs.py              tasks, tensors, preprocessing: nouns that export and service share
    manifest.py           the contract between export and service, versioned
    plans.py              TensorRT plans: what a plan was made from, and which machine opens it
    preprocessing.py      decoded image → network input, the same in training, evaluation and serving
    resampling.py         the part of a resized image that is asked for, within one level of Pillow and torch

    digit_sources.py      handwritten digits and photographs, split so that nothing is in two splits
    digit_strokes.py      one digit at any size and pose
    backgrounds.py        what digits are written on
    digit_scenes.py       labelled JPEG samples: crops and scenes, deterministic by (split, seed, index)

    metrics.py            top-1, mIoU
    detection_metrics.py  mAP@[.50:.95] for any selection of images

    networks/             resnet.py · yolov10.py (yolov10_body.py, yolov10_blocks.py) · ddrnet.py (dappm.py) · layers.py
                          unireplknet.py · evit.py · digits_vit.py
    training/             python -m saccade.models.training.all; see its own map
    checkpoints/          trained weights and figures.json, what they reach on the test split

Import direction: models ← service ← export. Only networks/ and the training commands import torch.
"""

if __name__ != "saccade.models":
    raise ImportError("this package is imported as `saccade.models`: under a second name it would exist twice")
