"""Structured pruning: removes whole channels from every layer that shares them; what is left is an ordinary dense
network.

channels.py    which channels of a traced network may leave together, and which must stay
importance.py  how far the answers move when a channel leaves
selection.py   which of them leave for a budget of multiply-adds: a pure choice
costs.py       multiply-adds of the network and of each of its layers
narrowing.py   the network without them, and the same network with them silenced, which must answer alike
budget.py      a network brought within its budget, with the proof
prune.py       the story: narrow, trace, recover, with every figure on the way
"""
