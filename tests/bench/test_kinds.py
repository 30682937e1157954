"""The table of benchmarks: what is of which kind, how rows are saved, and the command."""

import json
from dataclasses import dataclass

import pytest
from tilth import load
from tilth.bench import results, table
from tilth.bench.compare import Row
from tilth.bench.engines import PEERS
from tilth.bench.kinds import KINDS, NETS, kind_of
from tilth.bench.nets import file_name
from tilth.cli.main import main

BY_NAME = {kind.name: kind for kind in KINDS}
EXAMPLES = {"garnet": "decisions", "dense_crf": "fields", "hmm": "latent", "gmm": "latent",
            "lenet": "nets"}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A row with the numbers that a test gives it."""

    record: dict
    agrees: bool = True

    @property
    def model(self):
        return self.record["model"]

    def as_json(self):
        return {"model": self.model}

    def as_record(self):
        return self.record

    def __str__(self):
        return f"{self.model} was measured"


def given(**numbers):
    return Given({"model": "tiny", "batch": 1, "threads": 2, "engine": "tilth"} | numbers)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_has_one_kind(name):
    program = load(name)
    kind = BY_NAME[EXAMPLES[name]]
    assert kind_of(program, None) is kind and kind_of(program, ()) is kind
    assert next(k.name for k in KINDS if k.fits(program)) == kind.name


def test_a_peer_has_one_kind():
    peers = [peer for kind in KINDS for peer in kind.peers]
    assert len(peers) == len(set(peers)) and set(NETS.peers) == set(PEERS)
    program = load("lenet")
    for kind in KINDS:
        for peer in kind.peers:
            assert kind_of(program, (peer,)) is kind


def test_columns_of_keys_are_columns_of_rows():
    from tilth.bench.deciding import LearnRow, SolveRow
    from tilth.bench.decisions import DecisionRow
    from tilth.bench.fields import FieldRow
    from tilth.bench.latent import LatentRow

    for row in (SolveRow, LearnRow):
        assert set(BY_NAME["decisions"].key) <= row.__dataclass_fields__.keys()
    rows = {"decisions": DecisionRow, "fields": FieldRow, "latent": LatentRow, "nets": Row}
    assert rows.keys() == BY_NAME.keys()
    for name, row in rows.items():
        assert set(BY_NAME[name].key) <= row.__dataclass_fields__.keys()


# ---------------------------------------------------------------- results


def test_results_keep_other_rows_of_the_same_machine(tmp_path, monkeypatch):
    one, eight = given(median_ms=1.0), given(batch=8, median_ms=8.0)
    results.save_results(tmp_path, NETS, [eight, one])
    path = results.save_results(tmp_path, NETS, [given(median_ms=2.0)])
    saved = json.loads(path.read_text())
    assert [row["median_ms"] for row in saved["rows"]] == [2.0, 8.0]
    assert saved["machine"]["cpu"] and saved["model"] == "tiny"
    newer = saved["machine"] | {"versions": {"numba": "99"}}
    monkeypatch.setattr(results, "describe_machine", lambda packages: newer)
    assert results.save_results(tmp_path, NETS, [one]) == path
    assert json.loads(path.read_text())["rows"] == [one.record]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_has_a_folder_versions_and_a_key_of_its_own(tmp_path, kind):
    base = {"model": "tiny", "batch": 1} | dict.fromkeys(kind.key, 1)
    other = base | {kind.key[-1]: 2}
    path = results.save_results(tmp_path, kind, [Given(base | {"ms": 1}), Given(other | {"ms": 2})])
    results.save_results(tmp_path, kind, [Given(base | {"ms": 3})])
    saved = json.loads(path.read_text())
    assert path.parent.name == kind.name
    assert sorted(row["ms"] for row in saved["rows"]) == [2, 3]
    assert {"tilth", "numpy", *kind.packages} <= saved["machine"]["versions"].keys()


def test_each_machine_has_a_folder_and_a_table_of_its_own(tmp_path, monkeypatch):
    machines = [
        {"cpu": "Intel(R) Xeon(R) Processor", "features": ["avx2", "avx512f"], "cores": 2},
        {"cpu": "AMD EPYC 7B13", "features": ["sse4_2", "avx", "avx2"], "cores": 2},
        {"cpu": "AMD EPYC 7B13", "features": ["sse4_2", "avx", "avx2"], "cores": 8},
        {"cpu": "Neoverse-N1", "features": ["asimd"], "cores": 4},
        {"cpu": "unknown", "features": [], "cores": 1},
    ]
    own = {"peak_mb": 10.0, "ratio_to_best_peer": 1.6, "cold_s": 3.0, "warm_s": 0.5}
    paths = []
    for count, facts in enumerate(machines):
        facts["system"] = "Linux"
        monkeypatch.setattr(results, "describe_machine", lambda packages, facts=facts: facts)
        row = given(**own, median_ms=count + 0.5)
        paths.append(results.save_results(tmp_path, NETS, [row]))
    assert [path.parent.parent.name for path in paths] == [
        "intel-xeon-processor-avx512-2-cores", "amd-epyc-7b13-avx2-2-cores",
        "amd-epyc-7b13-avx2-8-cores", "neoverse-n1-neon-4-cores", "unknown-1-cores",
    ]  # fmt: skip
    for count, path in enumerate(paths):
        text = table.markdown(path.parent)
        assert text.count("| tiny |") == 1 and f"| {count + 0.5} |" in text


def test_saved_results_become_one_table(tmp_path):
    own = given(
        median_ms=1.25, peak_mb=10.0, memory_bound_mb=9.0, cold_s=3.0, warm_s=0.5,
        ratio_to_best_peer=1.6, ratio_quartiles=[1.5, 1.7], peak_share=0.5,
    )  # fmt: skip
    rows = [own, given(engine="torch", median_ms=2.0)]
    folder = results.save_results(tmp_path, NETS, rows).parent
    text = table.markdown(folder)
    assert "| tiny | 1 | 2 | 1.2 | - | - | 2.0 | 1.60 (1.50..1.70) | 50% | 10 (9) |" in text
    assert table.write_table(folder).read_text() == text


def test_steps_of_training_have_a_file_of_their_own():
    assert file_name(Row("tiny", 4, 2, "tilth", train=True)) == "tiny.train"
    assert file_name(Row("tiny", 4, 2, "tilth")) == "tiny"


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_is_measured_shown_and_saved_alike(name, tmp_path, capsys, monkeypatch):
    kind = BY_NAME[EXAMPLES[name]]
    asked = []

    def measure(program, request):
        asked.append(request)
        key = dict.fromkeys(kind.key, 1)
        yield [Given({"model": program.name, "batch": 1} | key, agrees=False)]

    monkeypatch.setitem(kind.__dict__, "measure", measure)
    words = ["bench", name, "--against", kind.peers[0], "--rounds", "7", "--save", str(tmp_path)]
    assert main(words) == 1, "it did not agree"
    assert capsys.readouterr().out == f"{name} was measured\n"
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [{"model": name}]
    (path,) = tmp_path.rglob("*.json")
    assert path.parent.name == kind.name and path.stem == name
    assert [(r.rounds, r.peers) for r in asked] == [(7, (kind.peers[0],))] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("garnet --against tensorflow", "`tensorflow` is not one of"),
        ("garnet --against quantecon,torch", "measure different kinds of models"),
        ("lenet --against hmmlearn", "`lenet` is not a model with latent variables"),
        ("hmm --against quantecon", "`hmm` is not a decision process"),
        ("hmm --against none", "`--against hmmlearn` or `--against sklearn`"),
        ("hmm --against hmmlearn --batch 8", "`--batch` says nothing about a model with latent"),
        ("garnet --against quantecon --profile", "`--profile` says nothing about a decision"),
    ],
)
def test_what_a_kind_does_not_do_is_refused(words, message, capsys):
    assert main(["bench", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_decision_process_is_measured_alone(tmp_path, capsys):
    words = ["bench", "cliff_walking", "--against", "none", "--threads", "1", "--rounds", "2"]
    assert main([*words, "--save", str(tmp_path), "--json"]) == 0
    solved, learned = json.loads(capsys.readouterr().out)
    assert (solved["method"], solved["states"], solved["pairs"]) == ("value_iteration", 48, 192)
    assert 0 < solved["solve_s"] < solved["whole_s"]
    assert 0 <= solved["error_bound"] <= solved["tol"]
    assert (learned["method"], learned["episodes"]) == ("q_learning", 500)
    assert learned["steps_a_second"] > 0
    (path,) = tmp_path.rglob("decisions/cliff_walking.json")
    assert len(json.loads(path.read_text())["rows"]) == 2


def test_a_decision_process_beside_quantecon(tmp_path, capsys):
    pytest.importorskip("quantecon", reason="the peer is not installed")
    words = ["bench", "garnet", "--against", "quantecon", "--threads", "1", "--rounds", "1"]
    assert main([*words, "--save", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows][:2] == ["value_iteration", "modified_policy_iteration"]
    assert all(row["agrees"] and row["max_difference"] < 4e-6 for row in rows)
    (path,) = tmp_path.rglob("decisions/garnet.json")
    assert len(json.loads(path.read_text())["rows"]) == len(rows)
