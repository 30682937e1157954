"""Renderers of a graph: table, drawing, page and plain data."""
