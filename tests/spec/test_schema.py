"""The JSON Schema: valid itself, takes what the reader takes, refuses what it refuses."""

import json

import pytest
from jsonschema import Draft7Validator
from tilth.spec.diagnostics import Reporter
from tilth.spec.envelope import KEYS, read_envelope
from tilth.spec.schema import json_schema, modeline
from tilth.spec.sections import LEARN_KEYS, SOLVE_KEYS, TRAIN_KEYS
from tilth.spec.source import make_source
from tilth.spec.yaml_nodes import ScalarNode, SequenceNode, read_yaml

BASE = "tilth: 1\nname: tiny\nmodel: |\n  x = 1\n"

GOOD = [
    "",
    "title: A title\nsource: Someone. 2016.\nimplements: [a, b]\ndtype: f64\n",
    "options: {block: basic, depths: [3, [4, 6]], rate: 1e-3, on: true}\n",
    "defaults: {conv: {bias: false, init: he}}\nuse: {v: vgg}\n",
    "options: {n: 1}\nvariants: {small: {n: 2}, tiny: {}}\n",
    "expect: {tiny: {parameters: 3, macs: 4.09e9, outputs: {y: [N, 3]}, at: {x: [1], T: 3}}}\n",
    "train:\n  epochs: 3\n  optimizer: sgd(lr=0.1)\n  schedule: warmup(5) >> cosine(85)\n"
    "  clip: 1.0\n  memory: 2GB\n  metrics: {a: f(x)}\n  validate: {fraction: 0.1}\n"
    "  objectives: [{loss: a, over: D}, {loss: b, over: [E, F]}]\n",
    "solve: {method: policy_iteration, tol: 1e-6}\n",
    "learn: {method: td_lambda, lambda: 0.5, seeds: [1, 2], explore: greedy}\n",
    "data: {a: digits, b: [[1, 2]], c: {path: x.npz, columns: {x: [a], y: b}, split: train}}\n",
    'weights: {torch: {"weight_ih_l0[0:H]": W_i}}\n',
]

BAD = [
    "titel: x\n",
    "title: 3\n",
    "implements: a\n",
    "dtype: f16\n",
    "options: {a: {b: 1}}\n",
    "options: {3a: 1}\n",
    "defaults: {conv: 3}\n",
    "variants: [a]\n",
    "expect: {tiny: 3}\n",
    "expect: {tiny: {parameters: many}}\n",
    "expect: {tiny: {outputs: {y: [0]}}}\n",
    "use: {v: 3}\n",
    "train: {lr: 0.1}\n",
    "train: {epochs: 0}\n",
    "train: {epochs: 1.5}\n",
    "train: {ema: 1}\n",
    "train: {optimizer: sdg(lr=0.1)}\n",
    "train: {schedule: 3}\n",
    "train: {objectives: []}\n",
    "train: {objectives: [{over: G}]}\n",
    "train: {memory: lots}\n",
    "solve: {method: guess}\n",
    "learn: {episodes: 3}\n",
    "learn: {method: sarsa, alpha: 0}\n",
    "data: {a: {paht: x}}\n",
    "data: {a: {path: x.npz, size: [1]}}\n",
    "weights: {troch: {a: b}}\n",
    "weights: {torch: {a: 3}}\n",
]


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def plain(node):
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return {entry.key.text: plain(entry.value) for entry in node.entries}


def both(text, validator):
    """Whether the reader takes a spec, and whether the schema does."""
    reporter = Reporter()
    read_envelope(text, "f.yaml", reporter)
    tree = read_yaml(make_source(text, "f.yaml"), Reporter())
    return not reporter.failed, validator.is_valid(plain(tree))


@pytest.mark.parametrize("extra", GOOD)
def test_good_examples_validate(extra, validator):
    assert both(BASE + extra, validator) == (True, True)


@pytest.mark.parametrize("extra", BAD)
def test_bad_examples_do_not(extra, validator):
    assert both(BASE + extra, validator) == (False, False)


@pytest.mark.parametrize("key", ["tilth", "name", "model"])
def test_required_keys(key, validator):
    spec = {"tilth": 1, "name": "a", "model": "x = 1\n"}
    assert validator.is_valid(spec)
    assert not validator.is_valid({k: v for k, v in spec.items() if k != key})
    assert not validator.is_valid(spec | {"tilth": 2})


def test_every_key_has_hover_text():
    schema = json_schema()
    assert set(schema["properties"]) == {key.name for key in KEYS}
    for section, keys in (("train", TRAIN_KEYS), ("solve", SOLVE_KEYS), ("learn", LEARN_KEYS)):
        properties = schema["properties"][section]["properties"]
        assert set(properties) == {key.name for key in keys}
        assert all(value["description"] for value in properties.values())
    assert all(value["description"] for value in schema["properties"].values())


def test_the_schema_is_json_and_the_same_each_time():
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_modeline():
    line = modeline("../tilth.schema.json")
    assert line == "# yaml-language-server: $schema=../tilth.schema.json"
    reporter = Reporter()
    assert read_envelope(line + "\n" + BASE, "f.yaml", reporter) is not None
    assert not reporter.diagnostics
