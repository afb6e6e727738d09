"""Chooses how a processor's cores are used, by measuring on the machine when the server starts.

forms.py      the ways to use the cores, and the choice between them
measuring.py  measures them with a served network and images, in a process of its own
tune.py       decides at start what to measure, keeps the results, and changes the settings
"""
