"""Writers of other formats; each takes a Graph and weights."""
