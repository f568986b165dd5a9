"""Pictures: every file format to RGB; tensors and augmentation against torchvision and Pillow."""

import itertools
import math
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference import torchvision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmscratch import images
from mmscratch.images import MEAN, STD, augment, normalize, open_image, to_tensor

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def row(mode, *pixels, palette=None):
    """A picture one pixel high."""
    image = Image.new(mode, (len(pixels), 1))
    if palette:
        image.putpalette(palette)
    image.putdata(pixels)
    return image


def on_white(value, alpha):
    return round((value * alpha + 255 * (255 - alpha)) / 255)


PALETTE = [10, 20, 30, 40, 50, 60, 70, 80, 90]
DEEP = np.array([[0, 257, 1000, 32768, 65400, 65535]], np.uint16)
DEEP_AS_GREY = [(round(value / 257),) * 3 for value in DEEP[0].tolist()]


@pytest.mark.parametrize(
    "name, image, options, pixels",
    [
        ("rgb.png", row("RGB", (1, 2, 3), (255, 0, 9)), {}, [(1, 2, 3), (255, 0, 9)]),
        ("grey.png", row("L", 0, 137, 255), {}, [(0,) * 3, (137,) * 3, (255,) * 3]),
        ("bits.png", row("1", 0, 1), {}, [(0,) * 3, (255,) * 3]),
        ("palette.png", row("P", 2, 0, palette=PALETTE), {}, [(70, 80, 90), (10, 20, 30)]),
        ("palette.gif", row("P", 2, 0, palette=PALETTE), {}, [(70, 80, 90), (10, 20, 30)]),
        ("cmyk.tif", row("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), {}, [(255, 0, 0), (0, 0, 0)]),
        ("16.png", Image.fromarray(DEEP), {}, DEEP_AS_GREY),
        ("16.tif", Image.fromarray(DEEP), {}, DEEP_AS_GREY),
        ("16B.tif", Image.frombytes("I;16B", (6, 1), DEEP.astype(">u2").tobytes()), {}, DEEP_AS_GREY),
        ("rgba.png", row("RGBA", (0, 90, 255, 51), (8, 8, 8, 0)), {}, [(204, 222, 255), (255, 255, 255)]),
        ("rgba.webp", row("RGBA", (0, 90, 255, 51)), {"lossless": True}, [(204, 222, 255)]),
        ("la.png", row("LA", (100, 128), (100, 255)), {}, [(on_white(100, 128),) * 3, (100,) * 3]),
        ("pa.tif", row("PA", (2, 0), (1, 128), palette=PALETTE), {},
         [(255,) * 3, tuple(on_white(v, 128) for v in (40, 50, 60))]),
        ("one.png", row("P", 0, 1, palette=PALETTE), {"transparency": 1}, [(10, 20, 30), (255,) * 3]),
        ("one.gif", row("P", 0, 1, palette=PALETTE), {"transparency": 1}, [(10, 20, 30), (255,) * 3]),
        ("many.png", row("P", 0, 1, palette=PALETTE), {"transparency": bytes([128, 0])},
         [tuple(on_white(v, 128) for v in (10, 20, 30)), (255,) * 3]),
        ("grey.png", row("L", 0, 200), {"transparency": 200}, [(0,) * 3, (255,) * 3]),
        ("colour.png", row("RGB", (1, 2, 3), (3, 2, 1)), {"transparency": (3, 2, 1)}, [(1, 2, 3), (255,) * 3]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_pixel_format_becomes_rgb(name, image, options, pixels, tmp_path):
    image.save(tmp_path / name, **options)
    opened = open_image(tmp_path / name)
    assert opened.mode == "RGB"
    assert np.abs(np.array(opened, int)[0] - pixels).max() <= 1  # of rounding


def png(width, height, bits, pixels, **chunks):
    """A grey PNG file, written by hand."""
    chunks = {
        "IHDR": struct.pack(">IIB4x", width, height, bits),
        **chunks,
        "IDAT": zlib.compress(pixels),
        "IEND": b"",
    }
    file = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks.items():
        part = name.encode() + body
        file += struct.pack(">I", len(body)) + part + struct.pack(">I", zlib.crc32(part))
    return file


@pytest.mark.parametrize("transparent", [0, 257, 32768, 65535])
def test_16_bits_with_a_transparent_grey(transparent, tmp_path):
    pixels = b"\0" + DEEP.astype(">u2").tobytes()
    (tmp_path / "deep.png").write_bytes(png(6, 1, 16, pixels, tRNS=struct.pack(">H", transparent)))
    assert np.array_equal(np.array(open_image(tmp_path / "deep.png"))[0], DEEP_AS_GREY)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_a_pixel_are_refused_by_name(mode, tmp_path):
    row(mode, 0, 7, 2000).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="deep.tif: .*32 bits a pixel have no known white"):
        open_image(tmp_path / "deep.tif")


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    assert np.abs(np.array(open_image(tmp_path / "red.jpg"), int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_is_read(suffix, tmp_path):
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    first, *others = [Image.new("RGB", (5, 3), colour) for colour in colours]
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, duration=100)
    opened = open_image(tmp_path / f"a.{suffix}")
    assert opened.size == (5, 3)
    assert np.abs(np.array(opened, int) - (255, 0, 0)).max() <= 3  # webp is lossy


UPRIGHT = {  # EXIF: where the stored rows and columns start -> the upright picture
    1: lambda stored: stored,  # at the top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.transpose(1, 0, 2),  # rows start at the left, columns at the top
    6: lambda stored: stored[::-1].transpose(1, 0, 2),  # right, top
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),  # left, bottom
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation, suffix, tmp_path):
    upper = [(0, 0, 0), (90, 90, 90), (255, 0, 0)]
    lower = [(0, 255, 0), (0, 0, 255), (255, 255, 255)]
    stored = np.uint8([upper, lower])
    stored = stored.repeat(16, 0).repeat(16, 1)  # JPEG keeps 16 × 16 squares
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"phone.{suffix}", exif=exif.tobytes(), quality=95)
    opened = open_image(tmp_path / f"phone.{suffix}")
    expected = UPRIGHT[orientation](stored)
    assert opened.size == expected.shape[1::-1]
    assert np.abs(np.array(opened, int) - expected)[8::16, 8::16].max() <= 8


TWO_ENTRIES = b"MM\0*\0\0\0\x08\0\x02"
TURNED_AND_BROKEN = (
    TWO_ENTRIES + struct.pack(">HHIHHHHIi", 0x112, 3, 1, 6, 0, 0x100, 9, 1, -6) + bytes(4)
)


@pytest.mark.parametrize(
    "exif", [b"garbage", b"MM\0*\0\0\0", b"MM\0*\0\0\xff\xff", TURNED_AND_BROKEN]
)
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_broken_exif_data_does_not_spoil_the_picture(suffix, exif, tmp_path):
    Image.fromarray(NOISE).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + exif, lossless=True)
    assert np.array_equal(open_image(tmp_path / f"a.{suffix}"), NOISE)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_truncated_file_is_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        open_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(9)]
)
def test_files_that_are_not_pictures_are_refused_by_name(content, tmp_path):
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as error:
        open_image(path)
    assert "\n" not in str(error.value)


def test_a_folder_or_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: ")):
        open_image(tmp_path)
    missing = tmp_path / "missing.jpg"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{missing}: no such file")):
        open_image(missing)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(100_000, 100_000, 8, b""))
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*pixels"):
        open_image(path)


def test_the_limit_of_pixels(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 37 * 53)
    assert open_image(path).size == (53, 37)
    monkeypatch.setattr(images, "MAX_PIXELS", 37 * 53 - 1)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*53 × 37 pixels"):
        open_image(path)


@pytest.mark.parametrize(
    "width, height", [(53, 37), (37, 53), (31, 31), (11, 23), (1, 1), (500, 1), (1, 500)]
)
def test_to_tensor_resizes_and_crops_the_centre(width, height):
    image = Image.fromarray(NOISE).resize((width, height))
    size = 31
    short = min(width, height)
    width = int(size * width / short)
    height = int(size * height / short)
    left = round((width - size) / 2)
    top = round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = resized.crop((left, top, left + size, top + size))
    tensor = to_tensor(image, size)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0), expected)


@pytest.mark.parametrize("upright", [False, True])
def test_a_panorama_shows_its_middle(upright):
    ramp = np.linspace(0, 255, 2003).round().astype(np.uint8)
    panorama = Image.fromarray(ramp[None].repeat(7, 0)).convert("RGB")
    if upright:
        panorama = panorama.transpose(Image.Transpose.TRANSPOSE)
    tensor = to_tensor(panorama, 29)
    assert tensor.shape == (3, 29, 29)
    assert (tensor.float() - 127.5).abs().max() <= 2


def test_a_picture_one_pixel_high_does_not_fill_the_memory():
    # resized as a whole it would be 31 × 620,000,000
    line = Image.new("RGB", (20_000_000, 1), (1, 2, 3))
    assert to_tensor(line, 31)[:, 30, 30].tolist() == [1, 2, 3]


def test_normalize_agrees_with_torchvision():
    batch = torch.from_numpy(NOISE).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)  # (B, 3, H, W)
    expected = torchvision.transforms.Normalize(MEAN, STD)(batch / 255)
    torch.testing.assert_close(normalize(batch), expected)
    white = normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    torch.testing.assert_close(white, torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))
    on_another_device = normalize(torch.zeros(2, 3, 5, 7, dtype=torch.uint8, device="meta"))
    assert on_another_device.shape == (2, 3, 5, 7) and on_another_device.is_meta


EXTREMES = (0.0, 1 - 1e-7)
NEUTRAL = 0.5  # the draw of a factor of 1 for brightness, contrast or saturation
SQUARE = math.log(1 / 0.85) / math.log(1.18 / 0.85)  # the draw of a ratio of width to height of 1
WHOLE = (1 - 1e-7, SQUARE, 0.3, 0.7)  # the draws of a crop that is the whole picture


def pictures(height, width):
    """(7, 3, height, width) uint8 of different brightness, with soft shapes and some noise."""
    generator = np.random.default_rng(1)
    soft = []
    for _ in range(7):
        coarse = generator.integers(0, 256, (5, 7, 3), np.uint8)
        soft.append(Image.fromarray(coarse).resize((width, height)))
    noise = generator.integers(-20, 21, (7, height, width, 3))
    bright = np.linspace(0.4, 1.3, 7)[:, None, None, None]
    batch = (np.stack(soft) * bright + noise).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


def as_draws(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def max_difference(images, others):
    """The largest difference of two pixels, from 0 to 255."""
    return (images.int() - others.int()).abs().max().item()


def random_draws(count, seed=2):
    return torch.rand(count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("height, width", [(41, 41), (37, 53)])
def test_colour_jitter_agrees_with_torchvision(height, width):
    batch = pictures(height, width)
    draws = random_draws(7)
    draws[:, :4] = as_draws(WHOLE)
    draws[:, -1] = 0.9
    draws[0, 4:7] = EXTREMES[0]  # the dark picture is darkened
    draws[6, 4:7] = EXTREMES[1]  # the bright one is brightened
    augmented = augment(batch, draws)
    functional = torchvision.transforms.v2.functional
    factors = (0.8 + 0.4 * draws[:, 4:7].double()).tolist()
    for picture, result, (brightness, contrast, saturation) in zip(batch, augmented, factors):
        expected = functional.adjust_brightness(picture / 255, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation)
        assert max_difference(result, (expected * 255).round()) <= 1


@pytest.mark.parametrize("which", range(3))
def test_brightness_contrast_and_saturation_go_from_0_8_to_1_2(which):
    functional = torchvision.transforms.v2.functional
    name = ("adjust_brightness", "adjust_contrast", "adjust_saturation")[which]
    adjust = getattr(functional, name)
    for extreme, factor in zip(EXTREMES, (0.8, 1.2)):
        light = [NEUTRAL] * 3
        light[which] = extreme
        batch = pictures(37, 53)
        augmented = augment(batch, as_draws([*WHOLE, *light, 0.9]).expand(7, -1))
        assert max_difference(augmented, (adjust(batch / 255, factor) * 255).round()) <= 1
        assert max_difference(augmented, batch) > 7


@pytest.mark.parametrize("height, width", [(41, 41), (37, 53)])
def test_crop_agrees_with_pillow(height, width):
    rows = [*itertools.product(EXTREMES, repeat=4), *random_draws(23)[:, :4].tolist()]
    size = (width, height)
    for picture, (area, ratio, left, top) in zip(itertools.cycle(pictures(height, width)), rows):
        draws = as_draws([area, ratio, left, top, NEUTRAL, NEUTRAL, NEUTRAL, 0.9])
        crop = augment(picture[None], draws)
        area = 0.6 + 0.4 * area
        ratio = 0.85 * (1.18 / 0.85) ** ratio
        crop_width = width * min(math.sqrt(area * ratio), 1)
        crop_height = height * min(math.sqrt(area / ratio), 1)
        x = left * (width - crop_width)
        y = top * (height - crop_height)
        box = (x, y, x + crop_width, y + crop_height)
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        expected = image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        assert max_difference(crop[0], torch.from_numpy(np.array(expected)).permute(2, 0, 1)) <= 1


def test_a_mirrored_picture_is_the_flipped_one():
    batch = pictures(37, 53)
    draws = random_draws(7)
    draws[:, -1] = 0.5
    unmirrored = augment(batch, draws)
    for mirror in (0.5, 0.75, EXTREMES[1], 1.0):
        draws[:, -1] = mirror
        assert torch.equal(augment(batch, draws), unmirrored)
    for mirror in (0.0, 0.25, 0.5 - 1e-7):
        draws[:, -1] = mirror
        assert torch.equal(augment(batch, draws), unmirrored.flip(-1))


def test_augment_depends_on_its_draws_only():
    batch = pictures(41, 41)
    draws = random_draws(7)
    state = torch.get_rng_state()
    augmented = augment(batch, draws)
    torch.manual_seed(3)
    assert torch.equal(augment(batch, draws), augmented)
    torch.set_rng_state(state)
    for i in range(8):
        others = draws.clone()
        others[:, i] = (others[:, i] + 0.5) % 1
        assert all(max_difference(*pair) > 3 for pair in zip(augment(batch, others), augmented))


def test_augment_treats_each_picture_independently():
    batch = pictures(41, 41)
    draws = random_draws(7)
    augmented = augment(batch, draws)
    for i in range(7):
        assert max_difference(augment(batch[i : i + 1], draws[i : i + 1])[0], augmented[i]) <= 1
    assert max_difference(augment(batch.flip(0), draws.flip(0)).flip(0), augmented) <= 1


def test_augment_does_not_change_its_inputs():
    batch = pictures(41, 41)
    draws = random_draws(7)
    pixels_before = batch.clone()
    draws_before = draws.clone()
    augment(batch, draws)
    assert torch.equal(batch, pixels_before) and torch.equal(draws, draws_before)


@pytest.mark.parametrize("height, width", [(41, 41), (37, 53), (1, 1), (2, 61)])
def test_extreme_draws_stay_within_the_picture(height, width):
    draws = as_draws(*itertools.product(EXTREMES, repeat=8))  # (256, 8)
    augmented = augment(torch.full((256, 3, height, width), 150, dtype=torch.uint8), draws)
    assert augmented.dtype == torch.uint8 and augmented.shape == (256, 3, height, width)
    darkest = augmented.amin((1, 2, 3))
    brightest = augmented.amax((1, 2, 3))
    assert torch.equal(darkest, brightest)  # one grey, up to the border
    assert {*darkest.tolist()} == {120, 180}


def test_augment_computes_in_float32():
    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            seen.update(x.dtype for x in tree_leaves(result) if isinstance(x, torch.Tensor))
            return result

    seen = set()
    batch = pictures(41, 41)
    draws = random_draws(7)
    with Types():
        augment(batch, draws)
    assert torch.float32 in seen and torch.float64 not in seen


@pytest.mark.gpu
def test_a_gpu_augments_as_a_cpu_does():
    batch = pictures(37, 53)
    draws = random_draws(7)
    augmented = augment(batch.cuda(), draws)
    assert augmented.is_cuda and max_difference(augmented.cpu(), augment(batch, draws)) <= 1


def run(code):
    command = [sys.executable, "-c", code]
    repository = Path(__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=120)


# What a torchvision built for another torch does.
BROKEN_TORCHVISION = "raise RuntimeError('operator torchvision::nms does not exist')"


def test_only_published_weights_need_torchvision(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(BROKEN_TORCHVISION)
    process = run(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import mmscratch.__main__, mmscratch.data.translations, mmscratch.images, mmscratch.plots, mmscratch.training
from mmscratch.weights import load_torchvision
assert "torchvision" not in sys.modules
try:
    load_torchvision("resnet18")
except ValueError as error:
    print(error)
""")
    assert process.returncode == 0, process.stderr
    [line] = process.stdout.splitlines()
    reason = "operator torchvision::nms does not exist"
    assert line.startswith(f"resnet18 needs torchvision, which cannot be imported ({reason})")


# -------------------------------------------------------------------------------------------------
# Files of strangers.


def test_a_file_of_another_format_is_not_opened_whatever_it_is_called(tmp_path):
    """Pillow would start Ghostscript for PostScript."""
    Image.new("RGB", (9, 9)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: not a picture"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_picture_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: .*not a regular file"):
        open_image(tmp_path / "a.jpg")


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGE", 3000 * 2000)
    x = np.linspace(0, 255, 4500, dtype=np.uint8)
    picture = np.stack([np.tile(x, (2400, 1))] * 3, axis=2)  # (2400, 4500, 3)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    opened = open_image(tmp_path / "a.jpg")
    assert opened.size == (2250, 1200)
    whole = to_tensor(Image.fromarray(picture), 32).int()
    assert (to_tensor(opened, 32).int() - whole).abs().max() <= 2
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").size == (4500, 2400)
