"""The README is true: its spec checks, and its commands print what it shows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown(command):
    """What the README prints below a command."""
    (text,) = re.findall(rf"```\n\$ tilth {command}\n(.*?)```", README, re.DOTALL)
    return [line.rstrip() for line in text.splitlines()]


def printed(done):
    return [line.rstrip() for line in (done.err + done.out).splitlines()]


def test_its_spec_checks_and_is_in_style(specs, tilth):
    (spec,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (specs / "readme.yaml").write_text(spec, encoding="utf-8")
    done = tilth("check", "readme.yaml")
    assert done.code == 0 and "ok: 3 facts proven" in done.out
    assert tilth("fmt", "--check", "readme.yaml").code == 0


def test_check_prints_what_it_shows(tilth):
    assert printed(tilth("check", "resnet50")) == shown("check resnet50")


def test_the_broken_spec_gets_the_message_it_shows(tilth, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    assert printed(tilth("check", "broken.yaml")) == shown("check broken.yaml")


def test_the_table_is_what_it_shows(tilth, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = shown("inspect resnet50 --fold")
    assert printed(tilth("inspect", "resnet50", "--fold"))[: len(table)] == table


def test_the_run_prints_what_it_shows(tilth):
    lines = shown("run gridworld")
    done = tilth("run", "gridworld")
    assert [line.rstrip() for line in done.out.splitlines()] == lines[1:]
    assert lines[0].startswith("reference: ") and done.err.startswith("reference: ")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_every_dependency_is_explained():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project[project.index("dependencies = [") : project.index("[project.scripts]")]
    named = set(re.findall(r'"([A-Za-z0-9-]+)>=', section))
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert {name for name in named if name not in explained} == set()
