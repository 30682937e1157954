"""Tilth: write a model the way the paper prints it; get fast code that you can read."""
