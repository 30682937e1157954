"""A graph in Graphviz's dot language, clustered by weight path; needs no Graphviz to write."""

from __future__ import annotations

from collections.abc import Mapping

from ..compiler.ir.graph import Graph
from .scene import Fold, Item, Scene, scene
from .svg import COLOURS


def render_dot(graph: Graph, title: str = "", fold: Fold = ()) -> str:
    """The drawing of a graph as dot text; ``fold`` as in the SVG drawing."""
    top = scene(graph, title, fold)
    heading = _quoted(f"{top.title}\n{top.subtitle}")
    lines = [
        f"digraph {_quoted(top.title)} {{",
        f'  label={heading}; labelloc=t; fontname="Helvetica";',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
        '  edge [color="#6b7785", arrowsize=0.7];',
        *_scene_lines(top, "g", "  "),
        "}",
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- helpers


def _scene_lines(drawn: Scene, prefix: str, indent: str) -> list[str]:
    tree: dict[tuple[str, ...], list[Item]] = {}
    for item in drawn.items:
        for depth in range(len(item.block) + 1):
            tree.setdefault(item.block[:depth], [])
        tree[item.block].append(item)
    lines = _cluster_lines(tree, (), prefix, indent)
    for u, v in drawn.edges:
        a, b = (_quoted(prefix + drawn.items[i].key) for i in (u, v))
        lines.append(f"{indent}{a} -> {b};")
    for number, body in enumerate(drawn.bodies):
        inner = f"{prefix}_{number}"
        lines.append(f"{indent}subgraph {_quoted('cluster_' + inner)} {{")
        lines.append(f"{indent}  label={_quoted(body.title)}; style=dashed;")
        lines += _scene_lines(body, inner, indent + "  ")
        lines.append(f"{indent}}}")
    return lines


def _cluster_lines(
    tree: Mapping[tuple[str, ...], list[Item]], block: tuple[str, ...], prefix: str, indent: str
) -> list[str]:
    lines = [f"{indent}{_node(item, prefix)}" for item in tree.get(block, [])]
    for inner in tree:
        if len(inner) == len(block) + 1 and inner[: len(block)] == block:
            name = ".".join(inner)
            lines.append(f"{indent}subgraph {_quoted(f'cluster_{prefix}_{name}')} {{")
            lines.append(f'{indent}  label={_quoted(name)}; style="rounded"; color="#aab3bd";')
            lines += _cluster_lines(tree, inner, prefix, indent + "  ")
            lines.append(f"{indent}}}")
    return lines


def _node(item: Item, prefix: str) -> str:
    fill, stroke = COLOURS[item.family]
    shape = ", shape=circle" if item.circle else ""
    return (
        f"{_quoted(prefix + item.key)} [label={_quoted(chr(10).join(item.lines))}, "
        f'fillcolor="{fill}", color="{stroke}"{shape}, tooltip={_quoted(item.tip)}];'
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
