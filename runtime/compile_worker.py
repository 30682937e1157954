"""A helper process: compiles the kernels it is given on standard input into the cache."""

from __future__ import annotations

import json
import sys

from .kernel_cache import kernel


def main() -> None:
    """Ask for a kernel's ``[name, source, ...]`` with an empty line, compile it, ask again."""
    print(flush=True)
    for job in sys.stdin:
        kernel(*json.loads(job))
        print(flush=True)


if __name__ == "__main__":
    main()
