"""Lowering: from a fused graph with known sizes to a plan of kernel calls."""
