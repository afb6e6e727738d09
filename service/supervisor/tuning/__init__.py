"""Measures on the machine that serves: how to use a processor's cores, and which variants are faster there.

forms.py           the ways to use the cores, and the choice between them
measuring.py       measures them with a served network and images, in a process of its own
tune.py            decides at start what to measure, and changes the settings
variant_speeds.py  has the variants of a version compared before it is loaded
comparing.py       times them in turns, in a process of its own
kept.py            keeps results for the next start
"""
