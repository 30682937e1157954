"""The front end: from the text of a spec file to a checked graph."""
