"""Numbers of outputs under ``expect:`` are proven by solving."""

import sys

import pytest
from tilth.program import SpecError, load

TEXT = """tilth: 1
name: doubling
expect: {doubling: {values: {"V[1]": %s, "%s": 0.0}}}
model: |
  index s : 0..3
  fix { V[s] = s + 0.5 * V[s] }
  output V
"""


def report(tmp_path, number, element="V[0]"):
    path = tmp_path / "doubling.yaml"
    path.write_text(TEXT % (number, element))
    return load(path).check()


def test_what_holds_is_proven(tmp_path):
    found = report(tmp_path, "2.000")
    assert found.ok and [p.name for p in found.proofs] == ["values.V[1]", "values.V[0]"]


def test_what_does_not_hold_is_an_error(tmp_path):
    found = report(tmp_path, "2.001")
    assert [d.code for d in found.diagnostics] == ["E901"]
    assert found.diagnostics[0].found == "expected 2.001, found 2"


def test_an_element_that_is_not_there(tmp_path):
    for element in ("V[3]", "W[0]", "V[0, 0]"):
        (fault,) = report(tmp_path, "2.0", element).diagnostics
        assert fault.code == "E901" and fault.hint == "the outputs are V[3]"


def test_a_model_with_inputs_cannot_be_proven(tmp_path):
    path = tmp_path / "shift.yaml"
    path.write_text(
        'tilth: 1\nname: shift\nexpect: {shift: {values: {"y[0]": 1.0}}}\nmodel: |\n'
        "  input x : f32[3]\n  y = x + 1\n  output y\n"
    )
    (warning,) = load(path).check().diagnostics
    assert warning.severity == "warning" and warning.code == "E902"


def test_a_table_of_the_specs_data_is_fetched_to_prove_values():
    pytest.importorskip("gymnasium")
    found = load("taxi").check()
    assert found.ok and sum(p.name.startswith("values.V[") for p in found.proofs) == 3


def test_values_wait_for_the_package_that_the_table_comes_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    found = load("taxi").check()
    assert found.ok and len(found.diagnostics) == 3
    assert all(d.code == "E902" and "pip install" in str(d.hint) for d in found.diagnostics)


def test_other_faults_of_solving_are_not_hidden(tmp_path):
    path = tmp_path / "endless.yaml"
    path.write_text(
        'tilth: 1\nname: endless\nexpect: {endless: {values: {"V[0]": 1.0}}}\nmodel: |\n'
        "  index s : 0..3\n  fix { V[s] = s + 2 * V[s] }\n  output V\n"
    )
    with pytest.raises(SpecError) as fault:
        load(path).check()
    assert fault.value.diagnostics[0].code == "E621"
