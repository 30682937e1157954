"""A kernel's LLVM IR and assembler as text for people: short names, no bookkeeping."""

from __future__ import annotations

import re

_NOISE = re.compile(
    r"\s*\.(text|file|section|p2align|type|size|globl|hidden|cfi_\w+|addrsig\w*|ident|weak|"
    r"intel_syntax|zero|ascii|asciz|string|set)\b"
)

_DATA = ("_ZN08NumbaEnv", ".const", "PyExc")
"""How names of data begin."""


def readable_llvm(text: str, own: str) -> str:
    """The functions of a module that compute, each from ``define`` to its closing brace.

    The one whose name holds ``own`` is called ``kernel``; Numba's wrappers are left out.
    """
    found = []
    for part in re.findall(r"(?ms)^define .*?^}", text):
        name = re.search(r'@("[^"]+"|[\w.$]+)', part)
        if name is not None and not _is_wrapper(name[1]):
            found.append(part.replace(f"@{name[1]}", "@kernel") if own in name[1] else part)
    lines = (re.sub(r", ?!\w+(\.\w+)* !\d+", "", line) for line in "\n\n".join(found).splitlines())
    return "\n".join(lines)


def readable_asm(text: str, own: str) -> str:
    """The instructions and labels of the same functions."""
    lines: list[str] = []
    inside, name = False, ""
    for line in text.splitlines():
        label = re.match(r'("?[\w.$]+"?):', line)
        if label is not None and not label[1].startswith((".L", '".L')):
            inside = not _is_wrapper(label[1]) and not label[1].strip('"').startswith(_DATA)
            name = label[1] if own in label[1] else name
        elif re.match(r"\s*\.section\b", line):
            inside = False  # constants; the code that follows starts with a label
        if inside and not _NOISE.match(line):
            code = line.split("#")[0].rstrip()
            lines.append(code.replace(name, "kernel") if name else code)
    return "\n".join(line for line in lines if line)


def _is_wrapper(name: str) -> bool:
    return name.strip('"').startswith(("cfunc.", "_ZN7cpython"))
