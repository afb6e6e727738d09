"""TensorRT plans while serving: which are there, which to build, and what serves meanwhile.

plan_decision.py    decides, for one version on one device, what serves, what is built next, and why (pure)
candidates.py       the variants that TensorRT may run, best first, and the keys of their plans (pure)
plan_ladder.py      which accepted plans make up the ladder of a device (pure)
build_wire.py       what the supervisor and the build child tell each other
build_child.py      runs the child that builds and measures one plan, and follows its progress
plan_builder.py     the plans of one device: decides anew after each change, and builds one plan at a time
plan_reconciler.py  brings the decisions of all devices into the version table, and swaps instances

The child is `python -m saccade.export.plans.engine_build`: building needs the exporter's graph rewrites, its gate and
the GPU, and a builder that dies or leaks takes no traffic with it. Nothing here imports the exporter; it is known by
name only.
"""
