"""Training as graphs: what an optimiser does to a flat buffer, and the step around it."""
