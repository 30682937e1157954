"""Pictures as tensors: sizes, crops, channels, rotation, normalisation, broken files."""

import numpy as np
import pytest
from PIL import Image
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.images import IMAGENET_MEAN, IMAGENET_STD, Preprocess, load_image

PLAIN = Preprocess(mean=(0.0,), std=(1.0,))


def save(path, array, **more):
    Image.fromarray(array).save(path, **more)
    return path


def gradient(height, width):
    """A picture whose red grows to the right and whose green grows downwards."""
    red = np.linspace(0, 255, width)[None].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.stack([red, green, np.full_like(red, 128)], -1).astype(np.uint8)


def test_shape_type_and_imagenet_normalisation(tmp_path):
    path = save(tmp_path / "a.png", np.full((300, 400, 3), 51, np.uint8))
    array = load_image(path, (224, 224))
    assert array.shape == (1, 3, 224, 224)
    assert array.dtype == np.float32
    expected = (0.2 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(array[0, :, 100, 100], expected, rtol=1e-5)


def test_own_size_is_kept_without_a_size_or_on_demand(tmp_path):
    path = save(tmp_path / "a.png", gradient(30, 50))
    assert load_image(path).shape == (1, 3, 30, 50)
    assert load_image(path, (8, 8), preprocess=Preprocess(fit="keep")).shape == (1, 3, 30, 50)
    np.testing.assert_allclose(
        load_image(path, preprocess=PLAIN)[0].transpose(1, 2, 0), gradient(30, 50) / 255, atol=1e-6
    )


def test_crop_takes_the_centre_at_imagenets_scale(tmp_path):
    """Resize(256) and CenterCrop(224) of a 256 x 512 picture: columns 144 to 368."""
    path = save(tmp_path / "a.png", gradient(256, 512))
    array = load_image(path, (224, 224), preprocess=PLAIN)
    expected = gradient(256, 512)[16:240, 144:368].transpose(2, 0, 1)[None] / 255
    np.testing.assert_allclose(array, expected, atol=1e-6)


def test_stretch_keeps_the_edges(tmp_path):
    path = save(tmp_path / "a.png", gradient(40, 80))
    array = load_image(path, (20, 20), preprocess=Preprocess("stretch", mean=(0.0,), std=(1.0,)))
    assert array[0, 0, 10, 0] < 0.05
    assert array[0, 0, 10, -1] > 0.95


@pytest.mark.parametrize(("height", "width"), [(3, 500), (500, 3), (1, 1)])
def test_extreme_sides_still_fill_the_crop(tmp_path, height, width):
    path = save(tmp_path / "a.png", gradient(height, width))
    array = load_image(path, (32, 48))
    assert array.shape == (1, 3, 32, 48)
    assert np.isfinite(array).all()


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, :10] = 255
    path = save(tmp_path / "a.jpg", picture, exif=exif, quality=95)
    array = load_image(path, preprocess=PLAIN)
    assert array.shape == (1, 3, 20, 10)
    assert array[0, 0, 2, 5] > 0.9 and array[0, 0, 17, 5] < 0.1


def test_grey_fills_three_channels_and_colour_one(tmp_path):
    grey = save(tmp_path / "g.png", np.full((8, 8), 102, np.uint8))
    array = load_image(grey, preprocess=PLAIN)
    np.testing.assert_allclose(array, np.full((1, 3, 8, 8), 0.4), atol=1e-6)
    colour = save(tmp_path / "c.png", np.full((8, 8, 3), 102, np.uint8))
    single = load_image(colour, channels=1)
    assert single.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(single, 0.4, atol=1e-6)


def test_transparency_lies_on_white(tmp_path):
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[:2, :, 3] = 255
    array = load_image(save(tmp_path / "a.png", picture), preprocess=PLAIN)
    assert (array[0, :, :2] == 0).all() and (array[0, :, 2:] == 1).all()


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    path = save(tmp_path / "a.png", np.full((4, 4), 0x8080, np.uint16))
    np.testing.assert_allclose(load_image(path, channels=1), 128 / 255, atol=1e-6)


def test_palette_pictures_are_read(tmp_path):
    path = tmp_path / "a.gif"
    Image.fromarray(np.full((6, 6, 3), 255, np.uint8)).convert("P").save(path)
    np.testing.assert_allclose(load_image(path, preprocess=PLAIN), 1.0)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0broken"])
def test_broken_pictures_are_E803(tmp_path, data):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(RuntimeFault) as caught:
        load_image(path)
    assert caught.value.code == "E803"
    assert "a.jpg" in caught.value.message


def test_cut_off_and_missing_pictures_are_E803(tmp_path):
    path = save(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:2000])
    for bad in (path, tmp_path / "none.png", tmp_path):
        with pytest.raises(RuntimeFault) as caught:
            load_image(bad)
        assert caught.value.code == "E803"


def test_other_channel_counts_and_wrong_statistics_are_E802(tmp_path):
    path = save(tmp_path / "a.png", gradient(8, 8))
    for run in (
        lambda: load_image(path, channels=4),
        lambda: load_image(path, preprocess=Preprocess(mean=(0.1, 0.2))),
        lambda: load_image(path, preprocess=Preprocess(std=(0.0,))),
    ):
        with pytest.raises(RuntimeFault) as caught:
            run()
        assert caught.value.code == "E802"
