"""Solving decision processes from their model, and learning them from episodes."""
