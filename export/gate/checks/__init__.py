"""The gate's checks: pure functions of the measured figures and the recipe's limits, one named line each.

    facts.py       what the gate knows besides the report: files, claims of origin, the version before
    origin.py      G0 file_hash, weights_hash; thresholds, trained_weights, preprocess
    numbers.py     G1 parity, conversion; G7 hostile_inputs; G8 batch_invariance; G9 determinism
    structure.py   G2 mask; G3 effective_precision, silent_layers, plan_precision; G4 sparse_tactic, sparse_gain
    answers.py     G5 agreement, plausible_answers; G6 test_images, better_than_guessing, metric_floor, metric_drop,
                   operating_drop, class_drop, device_metric, or unjudged; metric_regression
    slices.py      G6 slice_drop, slice_floor
    corruptions.py G6 corruption_drop, corruption_worst, corruption_clean
    speed.py       G10 speed_ratio, paired_speed, device_latency, latency, throughput, memory, latency_regression
    names.py       the number of each check, for tables

A check whose device is missing is pending: it neither passed nor failed.
"""
