"""Builds TensorRT plans from graphs into the plan store, without torch, so that a serving image can build them too.

runtime.py          which TensorRT is installed, which GPU is there, what can be built for
network.py          the graph as TensorRT parses it, strongly typed
build_log.py        what TensorRT says meanwhile, and which node an error is about
profile.py          batch sizes of a plan
progress.py         how far a build is, and how to end it
timings.py          kernel timings from one build to the next
precision_claim.py  what the parsed network multiplies in, against what the variant's name says
version_plans.py    builds the plans of a published version and puts them into the store
"""
