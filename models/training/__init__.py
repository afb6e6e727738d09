"""Trains the reference networks: resumable, seeded, selected on the tuning split, tested once at the end.

samples.py            decoded sample sets in memory (torch-free)
augmentation.py       cheap changes of a batch
runs.py               one command's story, from drawing samples to figures.json
loop.py               the training loop: schedule, average, resume, selection
state.py              what a resumed run needs, on disk
task_alignment.py     which anchors learn which truth
detection_loss.py     dual-assignment loss of the detector
evaluation.py         networks' figures on a split
figures.py            checkpoints and figures.json
command.py            the options all commands share
classifier.py · detector.py · segmenter.py · vit.py · all.py · evaluate.py    the commands (python -m …)
"""
