"""Inference: statements of a model become a factor graph, a plan, and tensor ops that answer."""
