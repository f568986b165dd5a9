"""Pictures of a single grey each, by which a test recognises them."""

from PIL import Image


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (11, 13), grey).save(path)


def greys(data):
    """The grey value of each example's picture, None where it has none."""
    return [
        int(data[i]["image"].float().mean()) if "image" in data[i] else None
        for i in range(len(data))
    ]
