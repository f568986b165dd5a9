"""Pictures: from a file to a tensor, and their augmentation."""

import math
import warnings
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

# The statistics of ImageNet, which torchvision's weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 200_000_000  # larger pictures are refused as decompression bombs
LARGE = 20_000_000  # pixels: one such picture at a time, and a JPEG at a fraction of its size
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # that Pillow may read

_one_at_a_time = Lock()  # of the pictures with more than LARGE pixels


def open_image(path: str | Path) -> Image.Image:
    """Read any picture file as RGB, upright.

    The rotation in the EXIF data of a phone is applied. Grey, palette, CMYK and 16-bit pictures are
    converted, transparent ones are laid on white, and only the first frame of an animation is read.
    A JPEG of more than `LARGE` pixels is decoded at a half, a quarter or an eighth of its size.
    Raises ValueError, naming the file, if it is not a picture, is truncated, has more than
    `MAX_PIXELS` pixels, or 32 bits in each, whose range nobody knows.
    """
    with warnings.catch_warnings():
        # Pillow warns at half of our limit, and about odd metadata.
        warnings.simplefilter("ignore")
        try:
            if isinstance(path, (str, Path)) and Path(path).exists() and not Path(path).is_file():
                raise ValueError("not a regular file")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"{width} × {height} pixels are more than {MAX_PIXELS:,}")
                is_large = width * height > LARGE
                if is_large:
                    image.draft("RGB", (1024, 1024))  # of a JPEG: at least that many pixels
                with _one_at_a_time if is_large else nullcontext():
                    return _to_rgb(image)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
        except Image.UnidentifiedImageError:
            raise ValueError(f"{path}: not a picture") from None
        # On broken files, Pillow's decoders raise OSError, SyntaxError, struct.error, …
        except Exception as error:
            raise ValueError(f"{path}: cannot be read as a picture: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    bits = getattr(image, "tag_v2", {}).get(258, (0,))  # of a TIFF file's samples
    if image.mode == "F" or (image.mode == "I" and bits[0] == 32):
        raise ValueError("32 bits a pixel have no known white: convert it to 8 or 16 bits")
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:
        pass  # broken EXIF data (SyntaxError, struct.error, …) in an intact picture
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would clip values above 255
        image.info.pop("transparency", None)  # a 16-bit grey, which would mark a wrong 8-bit one
        image = image.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def to_tensor(image: Image.Image, size: int) -> Tensor:
    """Resize the shorter side to `size` and crop the centre: (3, size, size) uint8."""
    width, height = image.size
    # Resize only the middle of a very long picture: all of 1 × 60,000 pixels would fill the memory.
    spare = (max(width, height) - 8 * min(width, height)) // 2
    if spare > 0 and width > height:
        image = image.crop((spare, 0, width - spare, height))
    elif spare > 0:
        image = image.crop((0, spare, width, height - spare))
    width, height = image.size
    short = min(width, height)
    image = image.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (3, size, size)


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float (B, 3, H, W), each channel (x / 255 - mean) / std.

    The result is on the device of the pictures.
    """
    mean = 255 * torch.tensor(MEAN, device=images.device).view(3, 1, 1)
    std = 255 * torch.tensor(STD, device=images.device).view(3, 1, 1)
    return (images - mean) / std


def augment(images: Tensor, draws: Tensor) -> Tensor:
    """Augment each training picture: a random crop, in another light, perhaps mirrored.

    images (B, 3, H, W) uint8 -> (B, 3, H, W) uint8, on the pictures' device. draws (B, 8), each
    uniform in [0, 1), decide, in this order: the crop's area (60 to 100 %), its ratio of width to
    height (0.85 to 1.18), its place from the left and from the top; the factors of brightness,
    contrast and saturation (0.8 to 1.2); and the mirroring (below 0.5).

    The same as torchvision's RandomResizedCrop, ColorJitter and RandomHorizontalFlip, but for a
    whole batch at once.
    """
    area, ratio, left, top, *light, mirror = draws.to(images.device).unbind(1)  # each (B,)
    area = 0.6 + 0.4 * area
    ratio = torch.exp(math.log(0.85) + ratio * math.log(1.18 / 0.85))
    width = (area * ratio).sqrt().clamp(max=1)  # of a picture 1 wide and 1 high
    height = (area / ratio).sqrt().clamp(max=1)
    x = left * (1 - width) + width / 2  # the crop's centre
    y = top * (1 - height) + height / 2
    zero = torch.zeros_like(x)
    sign = torch.where(mirror < 0.5, -1.0, 1.0)
    x_row = torch.stack([width * sign, zero, 2 * x - 1], dim=1)  # (B, 3), in coordinates -1 to 1
    y_row = torch.stack([zero, height, 2 * y - 1], dim=1)  # (B, 3)
    theta = torch.stack([x_row, y_row], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, H, W, 2)
    images = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    factors = [0.8 + 0.4 * draw.view(-1, 1, 1, 1) for draw in light]  # each (B, 1, 1, 1)
    brightness, contrast, saturation = factors
    images = images.mul_(brightness).clamp_(0, 255)
    mean_grey = _grey(images).mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
    images = _blend(images, mean_grey, contrast)
    images = _blend(images, _grey(images), saturation)
    return images.round_().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)  # each (B, 1, H, W)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    """others + factor (images - others), in place."""
    return images.sub_(others).mul_(factor).add_(others).clamp_(0, 255)
