"""Finds and builds plans for GPUs while serving, and decides what serves until a plan is ready.

plan_decision.py    decides, for one version on one device, what serves, what is built next, and why
candidates.py       lists the variants that a runtime may run, and the keys of their plans
plan_ladder.py      chooses the accepted plans that form the ladder of a device
build_wire.py       defines the messages between the supervisor and the build child
build_child.py      runs the child that builds and measures one plan, and follows its progress
plans.py            keeps what was decided for every version and device, and builds one plan at a time

The child is `python -m saccade.export.plans.engine_build`. It is a process of its own because building needs the
exporter's graph rewrites, its gate and the GPU, and must not affect traffic when it dies or leaks. Nothing here imports
the exporter; only the name of the program is known.
"""
