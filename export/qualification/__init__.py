"""Measures what a variant's file is and does, on the bytes that would be published.

qualify.py              step `qualify`; qualify_report.py is what it leaves
answer_measurements.py  parity, batches, hostile inputs, repetition: parity.py, models/metrics/agreement.py compare
accuracy.py             the task's metric: evidence.py, detection_evidence.py per image, bootstrap.py intervals
instance_answers.py     masks of objects, kept as run lengths
speed_step.py           step `speed`: all variants in turns, compared in pairs
speed_measurements.py   memory, and deploy against bare_graph.py: benchmark.py takes turns
slices.py               the metric of each camera, site or light
corruption_step.py      step `corruptions`: all variants on corrupted_pictures.py
file_structure.py       precision and sparsity by layer
chance.py               what an answer reaches that looks at no picture
operating_point.py      detectors at the score threshold that requests get
plausibility.py         answers that cannot be true, with what to write in the recipe
proposals.py            what `init` proposes from tuning pictures
readings.py             what it measures of pixels that a file says nothing of
metric_figures.py       a metric as manifest and report state it
curves.py               where it is wrong: confusion, precision and recall
disagreements.py        where its answers differ; answer_pictures.py draws that
"""
