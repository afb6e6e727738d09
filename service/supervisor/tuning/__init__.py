"""Measures on the machine that serves: how to use a processor's cores, and which variants are faster there.

forms.py           the ways to use the cores, and the choice between them
measuring.py       tries them with a served network and images, in a process of its own
trial_server.py    the real processes of all forms, with one version loaded
trial_process.py   one of them, forked from a process that has imported the programs
trial_load.py      the client: a closed loop
tune.py            decides at start what to measure, and changes the settings
variant_speeds.py  has the variants of a version compared before it is loaded
comparing.py       times them in turns, in a process of its own
program.py         runs either of these processes, which ends with the server
kept.py            keeps results for the next start
"""
