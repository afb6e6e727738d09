"""Automatic rollouts: bounds.py and decide.py are pure, controller.py writes what they decide into the document."""
