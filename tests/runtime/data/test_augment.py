"""Augmentation: each change by its definition, and draws that depend on nothing but the example."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from tilth.runtime.data import ArrayDataset, Loader
from tilth.runtime.data.augment import Step, fitted
from tilth.runtime.data.changes import CHANGES, Draws, symmetric_beta, warped
from tilth.spec.section_calls import AUGMENTATIONS

ALL = [
    Step("mean_image", {}),
    Step("hflip", {"p": 0.5}),
    Step("vflip", {"p": 0.5}),
    Step("crop", {"size": 9, "pad": 2}),
    Step("scale", {"low": 0.7, "high": 1.3}),
    Step("rotate", {"degrees": 20}),
    Step("colour_noise", {"sd": 0.1}),
    Step("colour_jitter", {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2}),
    Step("cutout", {"size": 3}),
    Step("zscore", {}),
    Step("whiten", {"eps": 1e-3}),
    Step("mixup", {"alpha": 0.2}),
]


def pictures(count=12, channels=3, height=10, width=11, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.random((count, channels, height, width)).astype(np.float32)
    label = np.eye(4, dtype=np.float32)[rng.integers(0, 4, count)]
    return ArrayDataset({"image": image, "label": label})


def changed(step, dataset, training=True, epoch=0, seed=0):
    examples = np.arange(len(dataset))
    chain = fitted([step], dataset)
    chain = chain if training else chain.evaluating
    return chain(dataset.take(examples), examples, seed, epoch)["image"]


def whole(dataset):
    return dataset.take(np.arange(len(dataset)))["image"]


def test_every_name_of_the_language_is_there():
    assert {rule.name for rule in AUGMENTATIONS.rules} == CHANGES.keys()
    assert {step.name for step in ALL} == CHANGES.keys()


@pytest.mark.parametrize("step", ALL[:-1], ids=lambda step: step.name)
def test_an_example_is_changed_alike_in_any_batch(step):
    dataset = pictures()
    chain = fitted([step], dataset)
    examples = np.arange(12)
    together = chain(dataset.take(examples), examples, 5, 3)["image"]
    some = np.array([7, 2, 11])
    alone = chain(dataset.take(some), some, 5, 3)["image"]
    # A product of matrices may add in another order for another number of rows.
    tolerance = 1e-5 * np.abs(together).max() if step.name == "whiten" else 0
    np.testing.assert_allclose(alone, together[some], atol=tolerance, rtol=0)
    assert chain.fields(dataset.fields)["image"].shape == together.shape[1:]
    assert together.dtype == np.float32


@pytest.mark.parametrize("step", ALL, ids=lambda step: step.name)
def test_seed_epoch_and_place_change_what_is_random(step):
    dataset = pictures()
    again = changed(step, dataset, epoch=1)
    np.testing.assert_array_equal(again, changed(step, dataset, epoch=1))
    fixed = step.name in ("mean_image", "zscore", "whiten")
    for settings in ({"epoch": 2}, {"epoch": 1, "seed": 1}):
        assert np.array_equal(changed(step, dataset, **settings), again) == fixed
    evaluated = changed(step, dataset, training=False)
    np.testing.assert_array_equal(evaluated, changed(step, dataset, False, 7, 7))
    if not fixed and step.name != "crop":
        np.testing.assert_array_equal(evaluated, whole(dataset))
    twice = fitted([Step("hflip", {"p": 0.5}), Step("hflip", {"p": 0.5})], dataset)
    examples = np.arange(12)
    assert not np.array_equal(
        twice(dataset.take(examples), examples, 0, 0)["image"], whole(dataset)
    )


def test_a_chain_resumed_in_an_epoch_goes_on_to_the_bit():
    dataset = pictures(40)
    loader = Loader(dataset, 6, seed=4, change=fitted(ALL, dataset), threads=3, ahead=3)
    batches = list(loader.epoch(2))
    for start in (1, 4):
        rest = list(loader.epoch(2, start))
        for got, want in zip(rest, batches[start:], strict=True):
            np.testing.assert_array_equal(got["image"], want["image"])
            np.testing.assert_array_equal(got["label"], want["label"])


def test_flips():
    dataset = pictures(400)
    given = whole(dataset)
    for name, axis in (("hflip", 3), ("vflip", 2)):
        made = changed(Step(name, {"p": 0.25}), dataset)
        mirrored = (made == np.flip(given, axis)).all((1, 2, 3))
        kept = (made == given).all((1, 2, 3))
        assert np.all(mirrored ^ kept) and 60 < mirrored.sum() < 140


def test_crops_are_windows_of_the_padded_picture():
    dataset = pictures(200, 1, 6, 7)
    padded = np.pad(whole(dataset), ((0, 0), (0, 0), (2, 2), (2, 2)))
    places = set()
    for number, made in enumerate(changed(Step("crop", {"size": 6, "pad": 2}), dataset)):
        found = [
            (top, left) for top in range(5) for left in range(6)
            if np.array_equal(padded[number, :, top : top + 6, left : left + 6], made)
        ]  # fmt: skip
        assert len(found) == 1
        places |= set(found)
    assert len(places) == 30
    central = changed(Step("crop", {"size": 6, "pad": 2}), dataset, training=False)
    np.testing.assert_array_equal(central, padded[..., 2:8, 2:8])


def test_warps_against_pillow():
    given = pictures(3, 1, 12, 9)
    for matrix in ([[0, 1], [-1, 0]], [[0.9, 0.2], [-0.1, 1.1]]):
        made = warped(whole(given), np.repeat(np.array([matrix], float), 3, 0))
        a = np.array(matrix)[::-1, ::-1]  # Pillow counts columns first, from pixel corners
        centre = np.array([4.5, 6.0])
        move = centre - a @ centre
        data = (a[0, 0], a[0, 1], move[0], a[1, 0], a[1, 1], move[1])
        for picture, found in zip(whole(given), made, strict=True):
            image = Image.fromarray(picture[0])
            want = image.transform((9, 12), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
            inner = (slice(3, -3), slice(3, -3))  # edges differ: Pillow repeats them
            np.testing.assert_allclose(found[0][inner], np.asarray(want)[inner], atol=1e-3)
    turned = warped(np.ascontiguousarray(whole(pictures(2, 3, 8, 8))),
                    np.repeat(np.array([[[0.0, 1], [-1, 0]]]), 2, 0))  # fmt: skip
    np.testing.assert_allclose(turned, np.rot90(whole(pictures(2, 3, 8, 8)), 1, (2, 3)), atol=1e-6)


def test_cutout_covers_a_square():
    dataset = pictures(300, 2, 9, 9)
    gone = changed(Step("cutout", {"size": 4}), dataset) == 0
    assert np.array_equal(gone[:, 0], gone[:, 1])
    counts = gone[:, 0].sum((1, 2))
    assert counts.max() == 16 and counts.min() >= 4
    for mask in gone[:, 0]:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()


def test_statistics():
    dataset = pictures(500)
    given = whole(dataset)
    np.testing.assert_allclose(
        changed(Step("mean_image", {}), dataset), given - given.mean(0), atol=1e-6
    )
    scored = changed(Step("zscore", {}), dataset)
    np.testing.assert_allclose(scored.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scored.std((0, 2, 3)), 1, atol=1e-5)
    whitened = changed(Step("whiten", {"eps": 1e-9}), pictures(500, 1, 4, 5)).reshape(500, -1)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(20), atol=1e-3)


def test_a_constant_channel_stays_finite():
    dataset = ArrayDataset({"image": np.full((5, 1, 3, 3), 0.25, np.float32)})
    np.testing.assert_array_equal(changed(Step("zscore", {}), dataset), 0)


def test_vectors_are_standardised_by_element():
    x = np.random.default_rng(0).normal(3, [1, 5, 9], (400, 3)).astype(np.float32)
    dataset = ArrayDataset({"image": x})
    scored = changed(Step("zscore", {}), dataset)
    np.testing.assert_allclose(scored, (x - x.mean(0)) / x.std(0), atol=1e-4)


def test_colour_noise_has_the_covariance_of_the_colours():
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 0.2]])
    image = (rng.standard_normal((3000, 8, 8, 3)) @ mixing).transpose(0, 3, 1, 2)
    dataset = ArrayDataset({"image": image.astype(np.float32)})
    noise = changed(Step("colour_noise", {"sd": 0.5}), dataset) - whole(dataset)
    np.testing.assert_allclose(noise - noise[:, :, :1, :1], 0, atol=1e-5)
    covariance = mixing.T @ mixing
    np.testing.assert_allclose(np.cov(noise[:, :, 0, 0].T), 0.25 * covariance, atol=0.02)


def test_colour_jitter_keeps_what_its_zeros_say():
    dataset = pictures(50)
    given = whole(dataset)

    def jitter(b, c, s):
        settings = {"brightness": b, "contrast": c, "saturation": s}
        return changed(Step("colour_jitter", settings), dataset)

    np.testing.assert_allclose(jitter(0, 0, 0), given, atol=1e-6)
    factor = jitter(0.4, 0, 0) / given
    np.testing.assert_allclose(factor, factor[:, :1, :1, :1] * np.ones_like(given), rtol=1e-3)
    assert 0.6 <= factor.min() < 0.7 and 1.3 < factor.max() <= 1.4
    grey = np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(
        np.tensordot(jitter(0, 0, 0.5), grey, (1, 0)), np.tensordot(given, grey, (1, 0)), atol=1e-5
    )
    mean = np.tensordot(given, grey, (1, 0)).mean((1, 2))
    np.testing.assert_allclose(
        np.tensordot(jitter(0, 0.5, 0), grey, (1, 0)).mean((1, 2)), mean, atol=1e-5
    )


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    share = symmetric_beta(alpha, Draws(1, 0, np.arange(20_000), "place"))
    assert np.all((share >= 0) & (share <= 1))
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_mixes_neighbours_and_their_labels():
    dataset = pictures(30)
    chain = fitted([Step("mixup", {"alpha": 1.0})], dataset)
    examples = np.arange(30)
    batch = dataset.take(examples)
    made = chain(batch, examples, 0, 0)
    share = symmetric_beta(1.0, Draws(0, 0, examples, "data.augment.0")).astype(np.float32)
    other = np.roll(examples, -1)
    np.testing.assert_allclose(made["label"].sum(1), 1, atol=1e-6)
    for name in ("image", "label"):
        part = share.reshape(-1, *[1] * (batch[name].ndim - 1))
        want = part * batch[name] + (1 - part) * batch[name][other]
        np.testing.assert_allclose(made[name], want, atol=1e-6)


def test_what_does_not_suit_the_data_is_told(fault_of):
    dataset = pictures()
    fault = fault_of(lambda: fitted([Step("crop", {"size": 40, "pad": 1})], dataset))
    assert fault.message == "`crop(40, pad=1)` is larger than the padded picture, 12 x 13"
    vectors = ArrayDataset({"x": np.ones((4, 5)), "label": np.arange(4)})
    fault = fault_of(lambda: fitted([Step("hflip", {"p": 0.5})], vectors))
    assert "`hflip` changes pictures" in fault.message
    two = ArrayDataset({"a": np.ones((4, 5)), "b": np.ones((4, 5))})
    assert "one picture or one vector" in fault_of(lambda: fitted(ALL[:1], two)).message
    chain = fitted([Step("mixup", {"alpha": 0.2})], vectors)
    fault = fault_of(lambda: chain(vectors.take(np.arange(4)), np.arange(4), 0, 0))
    assert "`label` holds whole numbers" in fault.message and "f32[N, CLASSES]" in fault.hint
    large = ArrayDataset({"x": np.ones((2, 5000))})
    assert (
        "4096 is the most"
        in fault_of(lambda: fitted([Step("whiten", {"eps": 1.0})], large)).message
    )
