"""Pictures: from a file to a tensor. The one place that imports torchvision."""

import importlib.util
import re
import sys
import warnings
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

try:
    import torchvision
except RuntimeError as error:
    # "operator torchvision::nms does not exist": torchvision's compiled part was built for another torch (a CPU torch
    # beside a CUDA torchvision, say) and was not loaded. Nothing here calls it: naming its operators lets the rest,
    # the transforms and the model definitions, be imported.
    if "operator torchvision::" not in str(error):
        raise
    _folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    _source = Path(_folder, "_meta_registrations.py").read_text(encoding="utf-8")
    _library = torch.library.Library("torchvision", "DEF")
    for _name in sorted(set(re.findall(r'"torchvision::(\w+)"', _source))):
        _library.define(f"{_name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    for _name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[_name]  # half imported
    import torchvision

from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which torchvision's weights expect
MOST_PIXELS = 200_000_000  # a larger picture is taken for an attack on the memory, and refused


def open_image(path: str | Path) -> Image.Image:
    """Read any picture file as RGB, upright.

    The rotation that a phone writes into the EXIF data is applied. Grey, palette, CMYK and 16-bit pictures are
    converted, transparent ones laid on white, and of an animation the first frame is taken.
    Raises ValueError, naming the file, where it is no picture, is truncated, or has more than `MOST_PIXELS` pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, at half of our limit, and those about odd metadata
        try:
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} × {image.height} pixels are more than {MOST_PIXELS:,}")
                return _to_rgb(image)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such file") from None
        except Image.UnidentifiedImageError:
            raise ValueError(f"{path}: not a picture") from None
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, … on broken files
            raise ValueError(f"{path}: cannot be read as a picture: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data (SyntaxError, struct.error, …) beside a picture that is whole
        pass
    if image.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion would clip all but the lowest 256 values
        image.info.pop("transparency", None)  # one grey of 65,536, which the conversion would make another
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
    if spare > 0:  # of a very long picture only the middle is resized: all of 1 × 60,000 pixels would fill the memory
        image = image.crop((spare, 0, width - spare, height) if width > height else (0, spare, width, height - spare))
    image = v2.functional.resize(image, [size], antialias=True)
    return v2.functional.pil_to_tensor(v2.functional.center_crop(image, [size]))


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float (B, 3, H, W), each channel (x / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) * 255 for values in (MEAN, STD))
    return (images - mean) / std


class Augment:
    """Another look at a training picture (3, H, W) uint8: crops and scales it a little, and changes its light.

    It is mirrored half of the time, but not where `mirror` is False: a caption that speaks of left and right would
    no longer be true.
    """

    def __init__(self, size: int):
        self.crop = v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.85, 1.18), antialias=True)
        self.light = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)

    def __call__(self, image: Tensor, mirror: bool) -> Tensor:
        image = self.light(self.crop(image))
        return image.flip(-1) if mirror and torch.rand(()) < 0.5 else image
