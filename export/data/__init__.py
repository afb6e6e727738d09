"""Data sets: reading, splitting, and checking the pictures and labels of a recipe."""
