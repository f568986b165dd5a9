"""Tables of captions as published sets have them: COCO, Karpathy's splits, and Kaggle's copies."""

from collections.abc import Iterator
from pathlib import Path

from .records import Reader, Record, RecordSchema, load_json, make_record, numbered, read_table


def _read_coco(path: Path, schema: RecordSchema, problems: list[str]) -> Iterator[Record]:
    """COCO's captions_train2017.json; the split is in its name."""
    content = load_json(path)
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = content["annotations"]
    except (TypeError, KeyError):
        raise ValueError(f"{path}: COCO's images and annotations were expected") from None
    split = next((name for name in ("train", "val", "test") if name in path.stem), None)
    for where, entry in numbered(path, annotations):
        try:
            values = {"file_name": names[entry["image_id"]], "caption": entry["caption"]}
        except (TypeError, KeyError):
            problems.append(f"{where}: a caption and the image_id of an image were expected")
            continue
        yield from make_record(where, values | {"split": split}, schema, problems)


def _read_karpathy(path: Path, schema: RecordSchema, problems: list[str]) -> Iterator[Record]:
    """Karpathy's dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json."""
    content = load_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    for where, entry in numbered(path, images, "Karpathy's list of images"):
        try:
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            split = entry["split"].removeprefix("rest")  # "restval" is for training
            split = "train" if split != entry["split"] else split
            values = {"file_name": entry["filename"], "caption": texts, "split": split}
        except (TypeError, KeyError, AttributeError):
            problems.append(f"{where}: a filename, a split and sentences were expected")
            continue
        yield from make_record(where, values, schema, problems)


PUBLISHED: dict[str, Reader] = {
    "captions_*[0-9].json": _read_coco,
    "annotations/captions_*[0-9].json": _read_coco,
    "dataset_*.json": _read_karpathy,
    "captions.txt": read_table,  # Flickr8k at Kaggle
    "results.csv": read_table,  # Flickr30k
}
