"""From Bellman's equations to a sparse decision process."""
