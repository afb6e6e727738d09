"""Structured pruning. Promises: whole channels leave everywhere at once; what is left is dense, and proven narrower.

channels.py    which channels of a traced network may leave together, and which must stay
selection.py   which of them leave for a budget of multiply-adds: a pure choice
costs.py       multiply-adds of the network and of each of its layers
narrowing.py   the network without them, and the same network with them silenced, which must answer alike
budget.py      a network brought within its budget, with the proof
prune.py       the story: narrow, trace, recover, with every figure on the way
"""
