"""Training: what drives a compiled step, and what it leaves in the run's folder."""
