"""The intermediate representation: sizes, types, the graph and its text."""
