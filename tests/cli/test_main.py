"""The entry point: exit codes, bugs, interrupts, pipes, colour, and what is not imported."""

import os
import subprocess
import sys

import pytest
from tilth import program
from tilth.cli import console


def python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def heavy_after(code):
    """Which heavy packages are imported by the code."""
    heavy = ["numba", "networkx", "numpy", "lark", "rich", "PIL", "matplotlib"]
    done = python(f"import sys\n{code}\nprint([m for m in {heavy} if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_importing_tilth_imports_nothing_else():
    assert heavy_after("import tilth") == "[]"


def test_help_imports_nothing_heavy():
    assert heavy_after("from tilth.cli.main import main\nmain(['--help'])") == "[]"


def test_check_needs_neither_numba_nor_a_plotting_library(specs):
    found = heavy_after("from tilth.cli.main import main\nmain(['check', 'tiny.yaml'])")
    assert "numba" not in found and "matplotlib" not in found and "rich" not in found


def test_help_version_and_usage(tilth):
    assert tilth("--help").code == 0
    assert tilth("--version").out.startswith("tilth ")
    assert tilth().code == 2
    done = tilth("chek")
    assert done.code == 2 and "invalid choice: 'chek'" in done.err
    for command in ("check", "inspect", "run", "fmt", "new", "schema", "zoo", "doctor"):
        done = tilth(command, "--help")
        assert done.code == 0 and done.out.startswith(f"usage: tilth {command}")


def crash(monkeypatch, fault):
    def load(*args, **kwargs):
        raise fault

    monkeypatch.setattr("tilth.cli.options.load", load)


def test_a_bug_is_one_message_without_a_traceback(tilth, monkeypatch):
    monkeypatch.delenv("TILTH_DEBUG", raising=False)
    crash(monkeypatch, ZeroDivisionError("oh\nno"))
    done = tilth("inspect", "resnet")
    assert done.code == 1
    assert done.err.startswith("internal error: ZeroDivisionError: oh\n")
    assert "--traceback" in done.err


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_bug_shows_its_traceback_on_demand(capsys, monkeypatch, how):
    from tilth.cli.main import main

    crash(monkeypatch, ZeroDivisionError("oh"))
    monkeypatch.setenv("TILTH_DEBUG", "1" if how == "environment" else "0")
    words = ["--traceback"] if how == "flag" else []
    assert main([*words, "inspect", "resnet"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupts_and_lack_of_memory(tilth, monkeypatch):
    crash(monkeypatch, KeyboardInterrupt())
    assert tilth("inspect", "resnet").code == 130
    crash(monkeypatch, MemoryError())
    done = tilth("inspect", "resnet")
    assert done.code == 1 and "error[E703]" in done.err


def test_a_broken_pipe_is_quiet(specs):
    code = "from tilth.cli.main import main; import sys; sys.exit(main(['schema']))"
    command = f'"{sys.executable}" -c "{code}" | head -c 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_a_terminal_without_unicode_is_enough(specs):
    code = "from tilth.cli.main import main; import sys; sys.exit(main(['inspect', 'tiny.yaml']))"
    done = python(code, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "6,924" in done.stdout


def test_colour_only_on_a_terminal_and_not_against_the_users_wish(monkeypatch, capsys):
    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.complain("error[E001]: [bold]x[/bold]")
    coloured = sys.stderr.text
    assert "\x1b[" in coloured and "[bold]x[/bold]" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.complain("error[E001]: x")
    assert sys.stderr.text == "error[E001]: x\n"


def test_the_installed_command_runs(specs):
    command = os.path.join(os.path.dirname(sys.executable), "tilth")
    if not os.path.exists(command):
        pytest.skip("the package is not installed beside this Python")
    done = subprocess.run([command, "check", "bad.yaml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error[E102]" in done.stderr and "Traceback" not in done.stderr


def test_every_public_name_of_the_program_exists():
    assert all(hasattr(program, name) for name in program.__all__)
