"""How a processor's cores are used, measured on the machine at hand when the server starts.

forms.py      the ways to choose from, and the choice (pure)
measuring.py  measures them with the real network and pictures, in a process of its own
tune.py       at start: what to measure, what is known already, and what the settings become
"""
