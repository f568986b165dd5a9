"""Pictures: from a file to a tensor."""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet, which torchvision's weights expect
MAX_PIXELS = 200_000_000  # a larger picture is taken for an attack on the memory, and refused


def open_image(path: str | Path) -> Image.Image:
    """Read any picture file as RGB, upright.

    The rotation that a phone writes into the EXIF data is applied. Grey, palette, CMYK and 16-bit pictures are
    converted, transparent ones laid on white, and of an animation the first frame is taken.
    Raises ValueError, naming the file, where it is no picture, is truncated, or has more than `MAX_PIXELS` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's own, at half of our limit, and those about odd metadata
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}"
                    )
                return _to_rgb(image)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
        except Image.UnidentifiedImageError:
            raise ValueError(f"{path}: not a picture") from None
        except (
            Exception
        ) as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, … on broken files
            raise ValueError(f"{path}: cannot be read as a picture: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except (
        Exception
    ):  # broken EXIF data (SyntaxError, struct.error, …) beside a picture that is whole
        pass
    if image.mode.startswith(
        "I"
    ):  # 16 bits, of which Pillow's own conversion would clip all but the lowest 256 values
        image.info.pop(
            "transparency", None
        )  # one grey of 65,536, which the conversion would make another
        image = image.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """Resize the shorter side to `size` and crop the centre: (3, size, size) uint8."""
    width, height = image.size
    spare = (max(width, height) - 8 * min(width, height)) // 2
    if (
        spare > 0
    ):  # of a very long picture only the middle is resized: all of 1 × 60,000 pixels would fill the memory
        image = image.crop(
            (spare, 0, width - spare, height)
            if width > height
            else (0, spare, width, height - spare)
        )
    width, height = image.size
    short = min(width, height)
    image = image.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (3, size, size)


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float (B, 3, H, W), each channel (x / 255 - mean) / std."""
    mean, std = (
        torch.tensor(values, device=images.device).view(3, 1, 1) * 255 for values in (MEAN, STD)
    )
    return (images - mean) / std


def augment(images: Tensor, draws: Tensor) -> Tensor:
    """Another look at each training picture: a crop of it, in another light, perhaps mirrored.

    images (B, 3, H, W) uint8; draws (B, 8), each uniform in [0, 1), which decide, in this order: the crop's area (60
    to 100 %), its ratio of width to height (0.85 to 1.18), its place from left and from top; the factors of brightness,
    contrast and saturation (0.8 to 1.2); and the mirror (below 0.5). -> (B, 3, H, W) uint8, on the pictures' device.

    The same as torchvision's RandomResizedCrop, ColorJitter and RandomHorizontalFlip, but for a batch at once.
    """
    area, ratio, left, top, *light, mirror = draws.to(images.device).unbind(1)  # each (B,)
    area, ratio = 0.6 + 0.4 * area, torch.exp(math.log(0.85) + ratio * math.log(1.18 / 0.85))
    width, height = (
        (area * ratio).sqrt().clamp(max=1),
        (area / ratio).sqrt().clamp(max=1),
    )  # of the whole, which is 1
    x, y = left * (1 - width) + width / 2, top * (1 - height) + height / 2  # the crop's centre
    zero, turn = torch.zeros_like(x), torch.where(mirror < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([width * turn, zero, 2 * x - 1], 1),
        torch.stack([zero, height, 2 * y - 1], 1),
    ]  # from -1 to 1
    places = F.affine_grid(
        torch.stack(rows, 1), list(images.shape), align_corners=False
    )  # (B, H, W, 2)
    images = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
    brightness, contrast, saturation = (
        0.8 + 0.4 * factor.view(-1, 1, 1, 1) for factor in light
    )  # each (B, 1, 1, 1)
    images = images.mul_(brightness).clamp_(0, 255)
    images = _blend(images, _grey(images).mean((2, 3), keepdim=True), contrast)
    return _blend(images, _grey(images), saturation).round_().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)  # each (B, 1, H, W)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    """others + factor (images - others), in place."""
    return images.sub_(others).mul_(factor).add_(others).clamp_(0, 255)
