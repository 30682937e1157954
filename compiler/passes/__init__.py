"""Target-free passes, one file each: a pass takes a Rewriter and Options and changes the graph."""
