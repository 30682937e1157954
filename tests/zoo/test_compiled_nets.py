"""Nets of the zoo compiled for the CPU agree with the reference, from several threads too."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import tilth
from tilth.bench.problem import bench_weights
from tilth.cli.main import main
from tilth.compiled import KEPT, CompiledProgram
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


@pytest.fixture(scope="module", autouse=True)
def kernels(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILTH_CACHE", str(tmp_path_factory.getbasetemp().parent / "kernels"))
        yield


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


def test_the_written_file_runs_alone(tmp_path):
    from safetensors.numpy import save_file

    _, compiled, weights, image = prepared("squeezenet1_1", 1, 64)
    save_file(weights, tmp_path / "w.safetensors")
    np.save(tmp_path / "x.npy", image)
    words = ["compile", "squeezenet1_1", "-o", str(tmp_path / "net.py")]
    shape = ["--shape", "image=1x3x64x64", "--weights", str(tmp_path / "w.safetensors")]
    assert main([*words, *shape]) == 0
    command = [sys.executable, "net.py", "--image", "x.npy", "--output", "y.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "y.npz")["logits"]
    expected = compiled(image=image)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


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
