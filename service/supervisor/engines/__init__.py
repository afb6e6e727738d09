"""TensorRT plans while serving: which are there, which to build, and what serves meanwhile.

lifecycle.py     decides, for one version on one device: serve what, build what, and why (pure)
candidates.py    the variants that TensorRT may run, best first, and the keys of their plans (pure)
plan_ladder.py    which accepted plans serve as rungs of a ladder (pure)
build_wire.py    what the supervisor and the build child tell each other
build_child.py   runs the child that builds and measures one plan, and follows its progress
engine_serving.py  brings decisions into the version table, and swaps instances
keeper.py        the plans of one device: decides anew after each change, one build at a time

The child is `python -m saccade.export.plans.engine_build`: building needs the exporter's graph rewrites, its gate and the
GPU, and a builder that dies or leaks takes no traffic with it. Nothing here imports the
exporter; it is known by name only.
"""
