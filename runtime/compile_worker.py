"""A helper process: compiles the kernels it is given on standard input into the cache."""

from __future__ import annotations

import json
import sys

from .kernel_cache import kernel


def main() -> None:
    """Read ``[[name, source], ...]`` and compile each."""
    for name, source in json.loads(sys.stdin.read()):
        kernel(name, source)


if __name__ == "__main__":
    main()
