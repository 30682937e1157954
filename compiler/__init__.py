"""The compiler: the graph, the op table, passes and lowering."""
