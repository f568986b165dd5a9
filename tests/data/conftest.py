"""Folders of pictures, and a separate cache for each test."""

import pytest
from grey_pictures import save


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("mmscratch.engine.cache.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Pictures, to which a test adds captions."""
    for name, grey in (("a.png", 10), ("b.png", 20), ("c.png", 30), ("sub/d.png", 40)):
        save(tmp_path / "photos" / name, grey)
    save(tmp_path / "secret.png", 99)
    return tmp_path / "photos"


@pytest.fixture
def forty(tmp_path):
    """Forty captioned pictures, picture i of grey i."""
    for i in range(40):
        save(tmp_path / f"forty/{i}.png", i)
    table = ["file_name,caption,split", *(f"{i}.png,number {i},train" for i in range(40))]
    (tmp_path / "forty/captions.csv").write_text("\n".join(table))
    return tmp_path / "forty"
