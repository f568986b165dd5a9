"""A report as one HTML file, which needs no network. Nothing here is about a model."""

import base64
import io
import json
import wave
from pathlib import Path

import numpy as np
from PIL import Image

MAX_BYTES = 2_900_000  # of the values in a page
TEMPLATE = Path(__file__).with_name("report.html")
PLACE = "DATA OF THE REPORT"  # in the template


def write_page(path: Path, report: dict) -> None:
    """Write the page that shows a report: plain values, as tasks/report.py makes them.

    The values stand in the page as JSON, in which "<" is escaped: no text can end the element that
    holds it, and the script of the page makes texts of texts only.
    """
    values = json.dumps(report, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        values = values.replace(character, f"\\u{ord(character):04x}")
    page = TEMPLATE.read_text(encoding="utf-8").replace(PLACE, values)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def picture_address(picture: Image.Image) -> str:
    """A picture as an address that contains it: photographs and spectrograms as JPEG, others without loss."""
    kind, options = "webp", {"lossless": True}
    if picture.mode == "L" or len(picture.getcolors(picture.width * picture.height)) > 2000:
        kind, options = "jpeg", {"quality": 60}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def sound_address(waveform: np.ndarray, sample_rate: int) -> str:
    """A waveform (S,), from -1 to 1, as an address that contains it: a WAV file of 8 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 1, sample_rate, 0, "NONE", ""))
        samples = np.clip(np.round(128 + 127 * waveform), 0, 255)
        writer.writeframes(samples.astype(np.uint8).tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def bytes_of(weights: np.ndarray) -> str:
    """Weights as base64: a byte for each, 255 for the largest."""
    largest = max(float(weights.max(initial=0.0)), 1e-9)
    values = np.round(255 * weights / largest).astype(np.uint8)
    return base64.b64encode(values.tobytes()).decode()
