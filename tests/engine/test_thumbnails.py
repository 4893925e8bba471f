"""Thumbnails: small images pixel by pixel, larger ones within 128 pixels, vectors as heat pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from engine.data.images import decode, fit
from engine.data.thumbnails import image_thumbnail, vector_thumbnail


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (64, 64), (5, 61), (1, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_images_are_lossless_at_their_own_size(size, mode):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    back = np.asarray(opened(image_thumbnail(Image.fromarray(pixels))).convert("RGB"))
    expected = pixels if mode == "RGB" else np.repeat(pixels[:, :, None], 3, 2)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize(("size", "expected"), [((500, 250), (128, 64)), ((65, 65), (65, 65)), ((90, 900), (13, 128))])
def test_large_images_fit_in_128_pixels(size, expected):
    assert opened(image_thumbnail(Image.new("RGB", size, "red"))).size == expected


def test_a_vector_is_blue_low_white_middle_red_high_and_gray_beyond_its_end():
    picture = np.asarray(opened(vector_thumbnail(np.array([-2, 0, 2, -9, 9], np.float32), -2, 2)).convert("RGB"))
    assert picture.shape == (3, 3, 3)
    low, middle, high, below, above = picture.reshape(9, 3)[:5].astype(int)
    assert low[2] > 150 > low[0] and middle.min() > 250 and high[0] > 150 > high[2]
    assert (below == low).all() and (above == high).all()
    assert len(np.unique(picture.reshape(9, 3)[5:], axis=0)) == 1


def test_a_constant_vector_has_a_picture():
    assert opened(vector_thumbnail(np.zeros(100, np.float32), 0, 0)).size == (10, 10)


def test_fit_covers_and_crops_the_center():
    # left third red, middle third green, right third blue: the center square is green
    pixels = np.zeros((30, 90, 3), np.uint8)
    for i in range(3):
        pixels[:, 30 * i : 30 * (i + 1), i] = 255
    inputs = fit(Image.fromarray(pixels), (3, 30, 30))
    np.testing.assert_array_equal(inputs, np.array([0, 255, 0], np.uint8)[:, None, None].repeat(30, 1).repeat(30, 2))


def test_decode_lays_transparency_on_white_and_turns_upright():
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert decode(clear, 128).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = b"\x00" + b"\xff" * 255
    assert decode(palette, 128).getpixel((0, 0)) == (255, 255, 255)

    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees
    Image.new("RGB", (40, 20), "red").save(out, "JPEG", exif=exif)
    assert decode(Image.open(out), 128).size == (20, 40)


def test_decode_takes_the_high_byte_of_16_bits_and_refuses_floats():
    deep = Image.fromarray(np.array([[0, 256, 65535]], np.uint16))
    assert np.asarray(decode(deep, 128)).tolist() == [[0, 1, 255]]
    with pytest.raises(ValueError, match="floating-point"):
        decode(Image.fromarray(np.zeros((2, 2), np.float32)), 128)
