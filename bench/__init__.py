"""Side-by-side measurement of engines on the same graph, weights and inputs."""
