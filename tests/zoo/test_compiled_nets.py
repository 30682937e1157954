"""Nets of the zoo compiled for the CPU agree with the reference, from several threads too."""

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import tilth
from tilth.bench.problem import bench_weights
from tilth.cli.main import main
from tilth.compiled import KEPT, CompiledProgram, module_source
from tilth.runtime import kernel_cache

NETS = {
    "resnet18": (2, 65),
    "squeezenet1_1": (1, 64),
    "shufflenet_v2_x0_5": (3, 64),
    "mobilenet_v2": (1, 70),
}
SLOW = {
    "resnext50_32x4d": (1, 64),
    "densenet121": (2, 64),
    "googlenet": (3, 64),
    "vgg11": (1, 224),
    "alexnet": (2, 96),
}


def prepared(name, images, side, **options):
    program = tilth.load(name)
    image = np.random.default_rng(1).standard_normal((images, 3, side, side)).astype(np.float32)
    sizes = program.sizes_of({"image": image})
    weights = bench_weights(program, sizes, 0)
    return program, CompiledProgram(program, weights, **options), weights, image


def check(name, images, side, **options):
    program, compiled, weights, image = prepared(name, images, side, **options)
    expected = program.run({"image": image}, weights, precision="f64")["logits"]
    found = compiled(image=image)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", NETS)
def test_compiled_nets_agree_with_the_reference(name):
    check(name, *NETS[name], threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_more_nets_agree(name):
    check(name, *SLOW[name], threads=2)


def test_precise_has_no_winograd():
    program, compiled, _, image = prepared("squeezenet1_1", 1, 64, threads=1, precise=True)
    module = compiled.module(program.sizes_of({"image": image}))
    assert not [row for row in module.plan.rows if "winograd" in row.kernel.name]


def test_eight_threads_share_one_module():
    _, compiled, _, image = prepared("squeezenet1_1", 1, 64, threads=2)
    images = [image * (1 + i) for i in range(8)]
    expected = [compiled(image=x) for x in images]
    wrong = []

    def run(place):
        for _ in range(5):
            if not np.array_equal(compiled(image=images[place]), expected[place]):
                wrong.append(place)

    team = [threading.Thread(target=run, args=(place,)) for place in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a compiled file, its weights and an image; and what it must give."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("written")
    _, compiled, weights, image = prepared("squeezenet1_1", 1, 64)
    save_file(weights, folder / "w.safetensors")
    np.save(folder / "x.npy", image)
    words = ["compile", "squeezenet1_1", "-o", str(folder / "net.py")]
    shape = ["--shape", "image=1x3x64x64", "--weights", str(folder / "w.safetensors")]
    assert main([*words, *shape]) == 0
    return folder, weights, compiled(image=image)


def run_file(folder, *words):
    command = [sys.executable, "net.py", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_written_file_runs_alone(written):
    folder, _, expected = written
    done = run_file(folder, "--image", "x.npy", "--output", "y.npz")
    assert done.returncode == 0, done.stderr
    found = np.load(folder / "y.npz")["logits"]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    shown = run_file(folder, "--help").stdout
    assert "--image VALUE" in shown and "float32[1, 3, 64, 64]" in shown
    assert "default: w.safetensors" in shown


def test_a_file_that_was_moved_says_where_its_weights_were(written, tmp_path):
    folder = written[0]
    shutil.copy(folder / "net.py", tmp_path / "net.py")
    x = str(folder / "x.npy")
    done = run_file(tmp_path, "--image", x)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"there is no `{tmp_path / 'w.safetensors'}`" in done.stderr
    assert "hint: give them: `--weights" in done.stderr
    done = run_file(tmp_path, "--image", x, "--weights", folder / "w.safetensors")
    assert done.returncode == 0, done.stderr


def test_first_calls_at_once_read_the_weights_once(written):
    program = """
import threading, numpy, net
from tilth.runtime import compiled
real, seen = compiled._fitting, []
def fitting(plan, file):
    seen.append(file)
    return real(plan, file)
compiled._fitting = fitting
x = numpy.load("x.npy")
ready = threading.Barrier(8)
found = []
def call():
    ready.wait()
    found.append(net(image=x))
threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(seen), len(found), all((y == found[0]).all() for y in found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=written[0], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "8", "True"]


@pytest.mark.parametrize("spec", ["lstm", "gridworld", "hmm", "shufflenet_v2_x1_0"])
def test_the_written_text_has_no_long_lines_of_code(spec):
    program = tilth.load(spec)
    sizes = {"N": 1, "T": 5, **program.nominal_sizes()}
    text = module_source(program, {n: sizes[n] for n in program.graph.symbols})
    # Tables of numbers and paths of weights may be longer than a line.
    long = [line for line in text.splitlines() if len(line) > 100]
    assert [line for line in long if "pack.decoded(" not in line] == []
    called = ", ".join(f"{name}=..." for name in program.inputs if name != "key")
    assert f"call it: `FILE({called})`" in text


def test_the_written_file_needs_no_compiler(written):
    program = (
        "import sys, numpy, net; net(image=numpy.load('x.npy'));"
        "print([m for m in sys.modules if m.startswith(('tilth.compiler', 'tilth.spec', 'lark'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=written[0], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_written_file_answers_bad_input_with_messages(written, tmp_path):
    from safetensors.numpy import save_file

    folder, weights, _ = written
    np.save(tmp_path / "small.npy", np.zeros((1, 3, 32, 32), np.float32))
    np.save(tmp_path / "flat.npy", np.zeros((3, 64, 64), np.float32))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "broken.safetensors").write_bytes(b"1234")
    name = next(name for name in weights if weights[name].ndim == 4)
    wrong = {path: array for path, array in weights.items() if path != name}
    save_file(wrong | {"other": np.zeros(1, np.float32)}, tmp_path / "wrong.safetensors")
    cases = [
        (["--image", tmp_path / "small.npy"], "E802", "expected f32[1, 3, 64, 64], found f32[1, 3"),
        (["--image", tmp_path / "flat.npy"], "E802", "is the batch axis missing?"),
        (["--image", tmp_path / "none.npy"], "E803", "cannot read"),
        (["--image", tmp_path / "broken.png"], "E803", "broken.png"),
        (["--image", "cat"], "E802", "`cat` is no value for the input `image`"),
        (["--image", "zeros", "--weights", tmp_path / "none.safetensors"], "E803", "cannot read"),
        (["--image", "zeros", "--weights", tmp_path / "broken.safetensors"], "E803", "broken"),
        (["--image", "zeros", "--weights", tmp_path / "wrong.safetensors"], "E801", name),
        (["--image", "zeros", "--output", tmp_path / "none" / "y.npz"], "E80", "cannot write"),
    ]
    for words, code, text in cases:
        done = run_file(folder, *words)
        assert done.returncode == 1, words
        assert f"error[{code}" in done.stderr, words
        assert text in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    for words in ([], ["--image", "zeros", "--threads", "0"]):
        assert run_file(folder, *words).returncode == 2


def test_a_wrong_input_gets_a_message():
    _, compiled, _, image = prepared("squeezenet1_1", 1, 64)
    with pytest.raises(tilth.SpecError, match="is the batch axis missing"):
        compiled(image=image[0])
    with pytest.raises(tilth.SpecError, match="imag"):
        compiled(imag=image)


def test_many_shapes_keep_few_modules():
    """A program keeps its latest specialisations; kernels are those of a few register tiles."""
    program = tilth.load("lstm")
    weights = bench_weights(program, {"T": 2, "N": 1}, 0)
    compiled = CompiledProgram(program, weights, threads=1)
    compiled(x=np.zeros((2, 3, 32), np.float32))
    before = len(kernel_cache._loaded)
    for steps in range(3, 43):
        compiled(x=np.zeros((steps, 3, 32), np.float32))
        assert len(compiled._modules) <= KEPT
    assert len(kernel_cache._loaded) - before <= 14
    # The one used last is kept, and gives what a fresh one gives.
    x = np.random.default_rng(0).standard_normal((42, 3, 32)).astype(np.float32)
    again = CompiledProgram(program, weights, threads=1)(x=x)
    assert all(np.array_equal(compiled(x=x)[name], again[name]) for name in again)
