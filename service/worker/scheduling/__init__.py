"""Decides which requests run next, and together; pure, with time passed in."""
