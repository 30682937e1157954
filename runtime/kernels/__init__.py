"""The kernel library: each module writes the source of one family of kernels."""
