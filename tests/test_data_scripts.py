"""The data scripts, against a server that fails, lies and sends wrong files, and against malicious archives."""

import hashlib
import http.client
import http.server
import io
import json
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from data_scripts import easy_vqa, flickr8k, fsdd, multi30k
from data_scripts.fetch import download, find, main, new_folder, progress, sha256, unpack
from mmscratch.data.captions import Flickr8k

REPOSITORY = Path(__file__).parents[1]
OFFICIAL = REPOSITORY.parent / "shared/multi30k"
OFFICIAL_FSDD = REPOSITORY.parent / "shared/fsdd"
CHUNK = 101  # bytes that are read at a time
BODY = bytes(i * i % 251 for i in range(1009))
OTHER = bytes(i * i % 241 for i in range(907))
SUM = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers range requests as RFC 9110 says, except for the next of server.faults:

    status   answer with this status                 cut    close after this number of bytes
    total    the length that is claimed              range  False: ignore the Range
    headers  others, and None: leave this one out    hang   wait for this event before the answer
    success  answer with this one, and the file      start  answer a Range from there on
    """

    def do_GET(self):
        server, asked, version = self.server, self.headers["Range"], self.headers["If-Range"]
        server.requests.append((self.path, asked, version))
        fault = server.faults.pop(0) if server.faults else {}
        if "hang" in fault:
            fault["hang"].wait(5)
        if "status" in fault or self.path not in server.files:
            return self.send_error(fault.get("status", 404))
        body = server.files[self.path]
        total, start, status = fault.get("total", len(body)), 0, fault.get("success", 200)
        if asked and fault.get("range", True) and version in (None, server.etag):
            start, status = (
                fault.get("start", int(asked.removeprefix("bytes=").removesuffix("-"))),
                206,
            )
        headers = {"Content-Length": total - start, "ETag": server.etag}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if start >= total:
            status, headers = 416, {"Content-Range": f"bytes */{total}"}
        self.send_response(status)
        for name, value in (headers | fault.get("headers", {})).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[start : fault.get("cut")])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of `files`; `requests` lists the (path, Range, If-Range) received."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("data_scripts.fetch.WAIT", 0)
    monkeypatch.setattr("data_scripts.fetch.CHUNK", CHUNK)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # the reader has left
    server.files, server.etag, server.requests, server.faults = {"/data.bin": BODY}, '"one"', [], []
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.url = f"{server.address}/data.bin"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new/data.bin"


def assert_only(path, content):
    """The file exists, with this content, alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == content


def ranges(server):
    return [asked for _, asked, _ in server.requests]


# -------------------------------------------------------------------------------------------------
# Download.


@pytest.mark.parametrize("expected", [None, SUM])
def test_a_file_is_fetched_once(server, path, expected):
    assert download(server.url, path, expected) is True
    assert_only(path, BODY)
    assert download(server.url, path, expected) is False
    assert server.requests == [("/data.bin", None, None)]


@pytest.mark.parametrize(
    "etag, expected", [('"one"', None), ('"one"', SUM), (None, SUM), ('W/"one"', SUM)]
)
def test_an_interrupted_download_resumes(server, path, etag, expected):
    server.etag, server.faults = etag, [{"cut": 5 * CHUNK}, {"cut": 7 * CHUNK}]
    assert download(server.url, path, expected)
    assert_only(path, BODY)
    assert ranges(server) == [None, f"bytes={5 * CHUNK}-", f"bytes={7 * CHUNK}-"]
    assert {version for _, _, version in server.requests[1:]} == {
        '"one"' if etag == '"one"' else None
    }


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_a_download_restarts_if_the_parts_may_belong_to_different_files(server, path, etag):
    server.etag, server.faults = etag, [{"cut": 5 * CHUNK}]
    download(server.url, path)
    assert_only(path, BODY)
    assert ranges(server) == [None, None]


@pytest.mark.parametrize("etag, expected", [('"one"', None), (None, SUM)])
def test_the_next_run_resumes_a_download(server, path, etag, expected):
    server.etag, server.faults = etag, [{"cut": 5 * CHUNK}] + [{"status": 503}] * 3
    with pytest.raises(ConnectionError, match="503"):
        download(server.url, path, expected)
    assert not path.exists()
    assert path.with_name("data.bin.part").read_bytes() == BODY[: 5 * CHUNK]
    server.requests.clear()
    download(server.url, path, expected)
    assert_only(path, BODY)
    assert ranges(server) == [f"bytes={5 * CHUNK}-"]


def test_a_file_that_changed_in_between_is_fetched_whole(server, path):
    server.faults = [{"cut": 5 * CHUNK}] + [{"status": 503}] * 3
    with pytest.raises(ConnectionError):
        download(server.url, path)
    server.files["/data.bin"], server.etag = OTHER, '"two"'
    server.faults = [{"cut": 3 * CHUNK}]
    download(server.url, path)
    assert_only(path, OTHER)
    assert [request[1:] for request in server.requests[-2:]] == [
        (f"bytes={5 * CHUNK}-", '"one"'),
        (f"bytes={3 * CHUNK}-", '"two"'),
    ]


@pytest.mark.parametrize("fault", [
    {"range": False},
    {"start": 0},
    {"start": 506},
    {"headers": {"Content-Range": "nonsense"}},
    {"headers": {"Content-Range": None}},
])  # fmt: skip
def test_a_wrong_answer_to_a_range_request(server, path, fault):
    server.faults = [{"cut": 5 * CHUNK}, fault]
    download(server.url, path)
    assert_only(path, BODY)
    assert ranges(server)[:2] == [None, f"bytes={5 * CHUNK}-"]


def test_an_unrequested_range(server, path):
    server.faults = [{"success": 206, "headers": {"Content-Range": "bytes 5-1008/1009"}}]
    download(server.url, path)
    assert_only(path, BODY)


@pytest.mark.parametrize(
    "left, asked", [(BODY, ["bytes=1009-"]), (BODY + b"more", ["bytes=1013-", None])]
)
def test_a_part_that_is_complete_or_too_long(server, path, left, asked):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(left)
    download(server.url, path, SUM)
    assert_only(path, BODY)
    assert ranges(server) == asked


def test_it_gives_up_after_three_attempts_without_a_new_byte(server, path):
    server.faults = [
        {"cut": n * CHUNK} for n in (1, 1, 1, 2, 2, 2, 3)
    ]  # twice in a row without a new byte, and again
    download(server.url, path)
    assert_only(path, BODY)
    path.unlink()
    server.requests.clear()
    server.faults = [{"cut": n * CHUNK} for n in (1, 2, 2, 2, 2)]
    with pytest.raises(
        ConnectionError, match=f"^{server.url}: the connection broke off after 202 of 1,009 bytes$"
    ):
        download(server.url, path)
    assert ranges(server) == [None, "bytes=101-", "bytes=202-", "bytes=202-", "bytes=202-"]


def test_a_server_that_restarts_and_breaks_off_forever(server, path):
    server.faults = [{"cut": n * CHUNK, "range": False} for n in (5, 4, 5, 4, 5, 4, 5)]
    with pytest.raises(ConnectionError, match="broke off"):
        download(server.url, path)
    assert len(server.requests) == 4


def test_it_waits_between_attempts(server, path, monkeypatch):
    waited = []
    monkeypatch.setattr("data_scripts.fetch.WAIT", 17)
    monkeypatch.setattr("data_scripts.fetch.time.sleep", waited.append)
    server.faults = [{"status": 503}, {"status": 429}]
    download(server.url, path)
    assert_only(path, BODY)
    assert waited == [17, 17]


def test_a_length_that_is_too_long(server, path):
    server.faults = [{"total": 2003}] * 4
    with pytest.raises(ConnectionError, match="broke off after 1,009 of 2,003 bytes"):
        download(server.url, path)
    assert not path.exists()


def test_a_length_that_is_too_short(server, path):
    server.faults = [{"total": 503}]
    with pytest.raises(ValueError, match="SHA-256"):
        download(server.url, path, SUM)
    assert not list(path.parent.iterdir())


def test_more_bytes_than_the_range_announced(server, path):
    server.faults = [
        {"cut": 5 * CHUNK},
        {"headers": {"Content-Range": "bytes 505-599/600", "Content-Length": None}},
    ]
    with pytest.raises(
        ValueError,
        match=f"^{server.url}: more than the 600 bytes that are announced; the partial file is deleted",
    ):
        download(server.url, path, SUM)
    assert not path.exists() and not path.with_name("data.bin.part").exists()


def test_more_bytes_than_allowed(server, path):
    server.faults = [{}, {"headers": {"Content-Length": None}}]
    with pytest.raises(
        ValueError, match=f"^{server.url}: 1,009 bytes, and more than 1,008 are refused"
    ):
        download(server.url, path, max_bytes=1008)
    assert not list(path.parent.iterdir())
    with pytest.raises(
        ValueError, match="more than the 1,008 bytes that are allowed; the partial file is deleted"
    ):
        download(server.url, path, max_bytes=1008)
    assert not path.exists() and not path.with_name("data.bin.part").exists()
    server.faults = [{}, {"headers": {"Content-Length": None}}]
    for _ in range(2):
        download(server.url, path, max_bytes=1009)
        assert_only(path, BODY)
        path.unlink()


def test_a_wrong_file_is_deleted_and_both_checksums_are_reported(server, path):
    server.files["/data.bin"] = OTHER
    with pytest.raises(ValueError) as error:
        download(server.url, path, SUM)
    text = str(error.value)
    assert (
        server.url in text
        and SUM in text
        and hashlib.sha256(OTHER).hexdigest() in text
        and "deleted" in text
    )
    assert "\n" not in text and not list(path.parent.iterdir())


def test_a_modified_file_is_fetched_again(server, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    assert download(server.url, path, SUM)
    assert_only(path, BODY)


def test_a_missing_file_is_requested_once(server, path):
    with pytest.raises(ConnectionError, match=f"^{server.address}/nothing: the server answers 404"):
        download(f"{server.address}/nothing", path)
    assert len(server.requests) == 1 and not list(path.parent.iterdir())


def test_no_network(server, path):
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=f"^{server.url}: no connection: .*refused"):
        download(server.url, path)


def test_a_server_that_does_not_answer(server, path, monkeypatch):
    monkeypatch.setattr("data_scripts.fetch.TIMEOUT", 0.05)
    end = threading.Event()
    server.faults = [{"hang": end}] * 3
    with pytest.raises(ConnectionError, match="timed out"):
        download(server.url, path)
    end.set()


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError(), http.client.IncompleteRead(b"")]
)
def test_a_connection_that_fails_while_reading(server, path, monkeypatch, error):
    read, calls = http.client.HTTPResponse.read, []

    def fail_once(response, amount):
        calls.append(amount)
        if len(calls) == 6:
            raise error
        return read(response, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", fail_once)
    download(server.url, path)
    assert_only(path, BODY)
    assert ranges(server) == [None, "bytes=505-"]


def test_a_disk_error_is_not_mistaken_for_a_broken_connection(server, path):
    path.with_name("data.bin.part").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        download(server.url, path)
    assert len(server.requests) == 1


def test_ctrl_c_keeps_the_partial_file(server, path, monkeypatch, capsys):
    read, calls = http.client.HTTPResponse.read, []

    def interrupted(response, amount):
        calls.append(amount)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return read(response, amount)

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", interrupted)
        assert main(lambda source: download(server.url, path), "free", "offline", []) == 130
    assert path.with_name("data.bin.part").read_bytes() == BODY[: 5 * CHUNK]
    assert capsys.readouterr().err == "stopped; the same command resumes from here\n"
    assert main(lambda source: download(server.url, path), "free", "offline", []) == 0
    assert_only(path, BODY)
    assert ranges(server) == [None, "bytes=505-"]


@pytest.mark.parametrize("error, text", [
    (ValueError("so"), "error: so\n"),
    (FileNotFoundError("so"), "error: so\n"),
    (ConnectionError("so"), "error: so. Copy it\n"),
])  # fmt: skip
def test_an_error_is_one_line(error, text, capsys):
    def fail(source):
        assert source == Path("there")
        raise error

    assert main(fail, "the licence", "Copy it", ["--from", "there"]) == 2
    assert capsys.readouterr() == ("the licence\n", text)


@pytest.mark.parametrize(
    "terminal, text", [(True, "\r\033[K1 of 2\r\033[K2 of 2\n"), (False, "2 of 2\n")]
)
def test_progress_is_one_line(terminal, text, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    with progress() as show:
        show("1 of 2")
        show("2 of 2")
    assert capsys.readouterr().out == text


def test_progress_of_a_download(server, path, capsys):
    server.files["/data.bin"] = bytes(160_001)
    download(server.url, path)
    path.unlink()
    server.faults = [{"headers": {"Content-Length": None}}]
    download(server.url, path)
    assert capsys.readouterr().out == "data.bin: 0.2 of 0.2 MB\ndata.bin: 0.2 MB\n"


# -------------------------------------------------------------------------------------------------
# Unpack.


def pack(path, entries):
    """An archive of (name, content); the content None means a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name + "/" * (content is None), content or b"")
    return path


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_refused(archive, match, **bounds):
    """The error is one line that names the archive, and nothing is written, inside or outside."""
    before = tree(archive.parent)
    with pytest.raises(ValueError, match=match) as error:
        unpack(archive, archive.parent / "out/data", **bounds)
    assert str(error.value).startswith(f"{archive}: ") and "\n" not in str(error.value)
    assert tree(archive.parent) == before and not list((archive.parent / "out").iterdir())


def test_unpack(tmp_path):
    entries = [
        ("empty", None),
        ("a/b", None),
        ("a/b/c.txt", BODY),
        ("./a/d.txt", OTHER),
        ("__MACOSX/._a", b"x"),
        ("e", b""),
    ]
    folder = tmp_path / "new/data"
    unpack(pack(tmp_path / "a.zip", entries), folder)
    assert tree(folder) == {"a/b/c.txt": BODY, "a/d.txt": OTHER, "e": b""}
    assert (folder / "empty").is_dir()
    assert list(folder.parent.iterdir()) == [folder]


def test_a_single_inner_folder_becomes_the_folder(tmp_path):
    unpack(
        pack(
            tmp_path / "a.zip", [
                ("top/a", BODY),
                ("top/sub/b", OTHER),
                ("__MACOSX/top/._a", b"x"),
                (".DS_Store", b"x"),
                ("top/._b", b"x"),
            ]
        ),
        tmp_path / "out/data",
    )
    assert tree(tmp_path / "out") == {"data/a": BODY, "data/sub/b": OTHER}
    unpack(pack(tmp_path / "a.zip", [("only", BODY)]), tmp_path / "one")
    assert tree(tmp_path / "one") == {"only": BODY}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "a/..", "/x", "//x/y", "C:x", "C:\\x", "..\\x", "\\\\server\\share\\x"],
)
def test_entries_outside_the_folder_are_refused(tmp_path, name):
    archive = pack(tmp_path / "a.zip", [("good", BODY), (name, OTHER)])
    assert_refused(archive, "would be outside")


def test_absolute_names_are_refused(tmp_path):
    place = tmp_path / "elsewhere"
    assert_refused(
        pack(tmp_path / "a.zip", [("good", BODY), (str(place), OTHER)]),
        f"'{place}' would be outside",
    )
    assert not place.exists()


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good", BODY)
        info = zipfile.ZipInfo("bad")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        file.writestr(info, "../../good")
    assert_refused(tmp_path / "a.zip", "'bad' is a link or a device")


@pytest.mark.parametrize("kind", [stat.S_IFREG | 0o755, stat.S_IFREG | 0o4777, 0])
def test_file_modes_in_an_archive_are_ignored(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("run")
        info.external_attr = kind << 16
        file.writestr(info, BODY)
    unpack(tmp_path / "a.zip", tmp_path / "data")
    assert not (tmp_path / "data/run").stat().st_mode & 0o7111


def test_limits_on_bytes_and_files(tmp_path):
    archive = pack(tmp_path / "a.zip", [("a", bytes(1009)), ("b", bytes(503)), ("c", bytes(11))])
    assert_refused(archive, "more than 1,522 bytes or 100,000 files", max_bytes=1522)
    assert_refused(archive, "more than 4,294,967,296 bytes or 2 files", max_files=2)
    unpack(archive, tmp_path / "data", max_bytes=1523, max_files=3)
    assert len(tree(tmp_path / "data")) == 3


@pytest.mark.parametrize("claimed", [7, 5_000_011])
def test_a_zip_that_lies_about_its_sizes(tmp_path, claimed):
    size = 3_000_017
    archive = pack(tmp_path / "a.zip", [("bomb", bytes(size))])
    data = archive.read_bytes()
    assert data.count(size.to_bytes(4, "little")) == 2 and len(data) < 9999
    archive.write_bytes(data.replace(size.to_bytes(4, "little"), claimed.to_bytes(4, "little")))
    assert_refused(
        archive,
        "more than 4,000,037 bytes" if claimed > size else "not a whole archive",
        max_bytes=4_000_037,
    )


def test_a_zip_bomb_is_detected_early(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "data_scripts.fetch.shutil.copyfileobj", lambda file, out: written.append(len(file.read()))
    )
    archive = pack(tmp_path / "a.zip", [("a", bytes(101)), ("bomb", bytes(3_000_017))])
    assert_refused(archive, "more than 1,009 bytes", max_bytes=1009)
    assert written == [101]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("entries", [
    [("a", BODY), ("a", OTHER)],
    [("a", BODY), ("./a", OTHER)],
    [("a", BODY), ("a/b", OTHER)],
    [("a", BODY), ("a", None)],
    [("a/b", BODY), ("a", OTHER)],
    [("a", None), ("a", OTHER)],
    [("a", BODY), ("a/b/c", None)],
])  # fmt: skip
def test_duplicate_names_are_refused(tmp_path, entries):
    assert_refused(
        pack(tmp_path / "a.zip", entries),
        f"'{entries[1][0]}/?' occurs twice, or as a file and a folder",
    )


@pytest.mark.parametrize("kept", [0, 1, 0.3, 0.7])
def test_a_truncated_archive(tmp_path, kept):
    archive = pack(
        tmp_path / "a.zip", [("a", bytes(hashlib.shake_256(b"a").digest(40_009))), ("b", BODY)]
    )
    data = archive.read_bytes()
    archive.write_bytes(data[: kept if kept == 1 else int(kept * len(data))])
    assert_refused(archive, "not a whole archive: .")


def test_a_broken_stream_of_bzip2_is_named(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a", BODY * 5)
    data = bytearray(archive.read_bytes())
    data[60:70] = bytes(10)
    archive.write_bytes(data)
    assert_refused(archive, "not a whole archive: Invalid data stream")


def test_a_file_that_is_not_an_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>not found</html>" * 101)
    assert_refused(tmp_path / "a.zip", "not a whole archive")


@pytest.mark.parametrize("place", [99, 31])
def test_an_archive_with_a_wrong_byte(tmp_path, place):
    archive = pack(tmp_path / "a.zip", [("a", BODY)])
    data = bytearray(archive.read_bytes())
    data[place] = 7 if place == 31 else data[place] ^ 1  # compressed data never begin with 7
    archive.write_bytes(data)
    assert_refused(archive, "not a whole archive")


# encrypted; an unknown compression
@pytest.mark.parametrize("place, value", [(6, 1), (8, 99)])
def test_a_zip_that_cannot_be_read(tmp_path, place, value):
    archive = pack(tmp_path / "a.zip", [("a", BODY)])
    data = bytearray(archive.read_bytes())
    data[place] = data[data.index(b"PK\1\2") + place + 2] = value
    archive.write_bytes(data)
    assert_refused(archive, "not a whole archive")


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "data.unfinished/a").mkdir(parents=True)
    (tmp_path / "data.unfinished/old").write_bytes(OTHER)
    unpack(pack(tmp_path / "a.zip", [("a", BODY)]), tmp_path / "data")
    assert tree(tmp_path) == {"data/a": BODY, "a.zip": (tmp_path / "a.zip").read_bytes()}


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").write_bytes(OTHER)
    with pytest.raises(OSError):
        unpack(pack(tmp_path / "a.zip", [("a", BODY)]), tmp_path / "data")
    assert tree(tmp_path).keys() == {"a.zip", "data/mine"}


def test_ctrl_c_while_unpacking_leaves_nothing(tmp_path, monkeypatch):
    def stop(file, out):
        out.write(file.read(3))
        raise KeyboardInterrupt

    monkeypatch.setattr("data_scripts.fetch.shutil.copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack(pack(tmp_path / "a.zip", [("a", BODY)]), tmp_path / "data")
    assert tree(tmp_path).keys() == {"a.zip"}


def test_a_new_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "data") as unfinished:
        (unfinished / "a").write_bytes(BODY)
        assert not (tmp_path / "data").exists()
    assert tree(tmp_path) == {"data/a": BODY}


def test_find(tmp_path):
    for name in ("x/a", "y/z/a", "__MACOSX/a", "y/__MACOSX/b", "y/c/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find(tmp_path, ["a", "b", "c"]) == {
        "a": [tmp_path / "x/a", tmp_path / "y/z/a"],
        "b": [],
        "c": [tmp_path / "y/c"],
    }
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        find(tmp_path / "nowhere", ["a"])


# -------------------------------------------------------------------------------------------------
# Multi30k.


@pytest.fixture
def texts(server):
    """Five files on the server, and their checksums."""
    names = [
        "raw/train.en.gz",
        "raw/train.de.gz",
        "raw/val.en.gz",
        "raw/val.de.gz",
        "image_splits/train.txt",
    ]
    server.files = {f"/{name}": name.encode() * 53 for name in names}
    return {name: hashlib.sha256(server.files[f"/{name}"]).hexdigest() for name in names}


def test_multi30k(server, texts, tmp_path, capsys):
    task = tmp_path / "data/task1"
    for _ in range(2):
        multi30k.fetch(None, tmp_path, server.address, texts)
        assert {f"/{name}": content for name, content in tree(task).items()} == server.files
        assert len(server.requests) == 5
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{task}: nothing to do: all 5 files exist, and their checksums are right"
    )
    (task / "raw/val.de.gz").write_bytes(OTHER)
    (task / "raw/val.en.gz").unlink()
    multi30k.fetch(None, tmp_path, server.address, texts)
    assert {f"/{name}": content for name, content in tree(task).items()} == server.files
    assert [name for name, *_ in server.requests[5:]] == ["/raw/val.en.gz", "/raw/val.de.gz"]
    assert "their checksums are right; 2 of them are new" in capsys.readouterr().out


def test_multi30k_from_a_folder(server, texts, tmp_path, capsys):
    source, task = tmp_path / "source", tmp_path / "new/data/task1"
    for i, name in enumerate(texts):
        if name != "image_splits/train.txt":
            (source / f"{i}").mkdir(parents=True)
            (source / f"{i}" / Path(name).name).write_bytes(server.files[f"/{name}"])
    (source / "0a").mkdir()
    (source / "0a/val.en.gz").write_bytes(OTHER)  # found first, but not the official one
    for _ in range(2):
        multi30k.fetch(source, tmp_path / "new", "nowhere", texts)
        assert tree(task) == {
            name: server.files[f"/{name}"] for name in texts if name != "image_splits/train.txt"
        }
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{source / '0a/val.en.gz'}: skipped: not the official raw/val.en.gz")
    assert (
        rest
        == [
            f"{task}: 4 of 5 files exist, and their checksums are right",
            f"not below {source}: train.txt",
        ]
        * 2
    )
    multi30k.fetch(None, tmp_path / "new", server.address, texts)  # the rest, from the network
    assert [name for name, *_ in server.requests] == ["/image_splits/train.txt"]


@pytest.mark.parametrize("lacking", ["raw/train.en.gz", "raw/val.de.gz"])
def test_multi30k_needs_two_languages(server, texts, tmp_path, lacking):
    for name in texts.keys() - {lacking}:
        (tmp_path / Path(name).name).write_bytes(server.files[f"/{name}"])
    with pytest.raises(ValueError, match="of two languages are needed"):
        multi30k.fetch(tmp_path, tmp_path / "new", "nowhere", texts)


def test_multi30k_refuses_a_file_with_a_wrong_checksum(server, texts, tmp_path):
    server.files["/raw/val.de.gz"] = OTHER
    with pytest.raises(ValueError, match="/raw/val.de.gz: not the expected file"):
        multi30k.fetch(None, tmp_path, server.address, texts)
    assert not (tmp_path / "data/task1/raw/val.de.gz").exists()


def test_multi30k_refuses_a_file_that_is_too_large(server, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(multi30k, "MAX_BYTES", 503)
    with pytest.raises(ValueError, match="more than 503 are refused"):
        multi30k.fetch(None, tmp_path, server.address, texts)


def test_the_official_files_of_multi30k():
    tests = {"test_2016_flickr": "cs de en fr", "test_2017_flickr": "de en fr", "test_2017_mscoco": "de en fr",
             "test_2018_flickr": "cs de en fr", "train": "cs de en fr", "val": "cs de en fr"}  # fmt: skip
    names = {
        f"raw/{split}.{language}.gz"
        for split, languages in tests.items()
        for language in languages.split()
    }
    assert multi30k.SUMS.keys() == names | {f"image_splits/{split}.txt" for split in tests}
    assert len(set(multi30k.SUMS.values())) == 28 and all(
        len(bytes.fromhex(value)) == 32 for value in multi30k.SUMS.values()
    )


@pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="needs the files of Multi30k beside the repository"
)
@pytest.mark.parametrize("command", [["-m", "data_scripts.multi30k"], ["data_scripts/multi30k.py"]])
def test_multi30k_as_a_command(tmp_path, command):
    shutil.copytree(REPOSITORY / "data_scripts", tmp_path / "data_scripts")
    run = subprocess.run(
        [sys.executable, *command, "--from", OFFICIAL], cwd=tmp_path, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(multi30k.LICENCE) and "6 of 28 files" in run.stdout
    for name in ("raw/train.en.gz", "raw/val.de.gz", "image_splits/val.txt"):
        assert sha256(tmp_path / "data/multi30k/data/task1" / name) == sha256(
            OFFICIAL / "data/task1" / name
        )


# -------------------------------------------------------------------------------------------------
# Flickr8k.


def jpeg(i):
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (i, 2 * i, 99)).save(file, "jpeg")
    return file.getvalue()


def photos(count, lacking=(), corrupt=()):
    """The contents of the two archives, as in the official ones: {file name: content} each."""
    names = [f"{i:03}_photo.jpg" for i in range(count)]
    tokens = "".join(f"{name}#{j}\tcaption {j} of it\n" for name in names for j in range(2))
    texts = {"Flickr8k.token.txt": tokens.encode(), "readme.txt": b"read me"}
    for k, split in enumerate(("train", "dev", "test")):
        texts[f"Flickr_8k.{split}Images.txt"] = "\n".join(names[k::3]).encode()
    pictures = {
        name: jpeg(i)[: 60 if i in corrupt else None]
        for i, name in enumerate(names)
        if i not in lacking
    }
    return pictures, texts


def archives(folder, pictures, texts):
    folder.mkdir(parents=True, exist_ok=True)
    inside = [("Flicker8k_Dataset", None), ("__MACOSX/Flicker8k_Dataset/._x.jpg", b"mac")]
    inside += [(f"Flicker8k_Dataset/{name}", content) for name, content in pictures.items()]
    pack(folder / "Flickr8k_Dataset.zip", inside)
    pack(folder / "Flickr8k_text.zip", [*texts.items(), ("__MACOSX/._readme.txt", b"mac")])
    return folder


@pytest.fixture
def offered(server, tmp_path):
    """Puts the archives of `count` photographs on the server."""

    def offer(*args, **kwargs):
        folder = archives(tmp_path / "offered", *photos(*args, **kwargs))
        server.files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}

    return offer


def assert_flickr8k(folder, pictures, texts):
    assert (
        tree(folder / "Flicker8k_Dataset") == pictures and tree(folder / "Flickr8k_text") == texts
    )
    assert {path.name for path in folder.iterdir()} == {
        "Flicker8k_Dataset",
        "Flickr8k_text",
        ".checked",
    }


def test_flickr8k(server, offered, tmp_path, monkeypatch, capsys):
    offered(11)
    folder = tmp_path / "flickr8k"
    flickr8k.fetch(None, folder, server.address)
    assert_flickr8k(folder, *photos(11))
    assert "11 pictures have captions; 0 of them are missing" in capsys.readouterr().out
    monkeypatch.setattr("mmscratch.engine.cache.CACHE", tmp_path / "cache")
    read = [Flickr8k(folder, split, size=5) for split in ("train", "validation", "test")]
    assert [len(data) for data in read] == [4, 4, 3] and not any(data.problems for data in read)

    opened = []
    monkeypatch.setattr(flickr8k, "open_image", opened.append)
    flickr8k.fetch(None, folder, server.address)
    assert "nothing to do" in capsys.readouterr().out and not opened
    assert [name for name, *_ in server.requests] == ["/Flickr8k_Dataset.zip", "/Flickr8k_text.zip"]


@pytest.mark.parametrize("change", ["grown", "gone", "more", "another token file"])
def test_flickr8k_is_checked_again_when_a_file_has_changed(
    server, offered, tmp_path, capsys, change
):
    offered(101)
    flickr8k.fetch(None, tmp_path, server.address)
    picture = tmp_path / "Flicker8k_Dataset/005_photo.jpg"
    if change == "grown":
        picture.write_bytes(b"no picture" * 307)
    if change == "gone":
        picture.unlink()
    if change == "more":
        picture.with_name("more.jpg").write_bytes(jpeg(5))
    if change == "another token file":
        with open(tmp_path / "Flickr8k_text/Flickr8k.token.txt", "a") as file:
            file.write("999_photo.jpg#0\tmore\n")
    capsys.readouterr()
    for first in (True, False):
        flickr8k.fetch(None, tmp_path, server.address)
        out = capsys.readouterr().out
        assert ("pictures opened" in out) == first and ("nothing to do" in out) != first
        assert f"{0 if change == 'more' else 1} of them are missing or do not open" in out
    assert len(server.requests) == 2


def test_flickr8k_reports_missing_and_corrupt_pictures(server, offered, tmp_path, capsys):
    offered(211, lacking=[17], corrupt=[23])
    folder = tmp_path / "flickr8k"
    flickr8k.fetch(None, folder, server.address)
    out = capsys.readouterr().out
    assert f"  {folder}/Flicker8k_Dataset/017_photo.jpg: no such file\n" in out
    assert f"  {folder}/Flicker8k_Dataset/023_photo.jpg: cannot be read as a picture" in out
    assert "211 pictures have captions; 2 of them are missing or do not open" in out


@pytest.mark.parametrize("faults", [{"lacking": [3, 5, 7]}, {"corrupt": [3, 5, 7]}])
def test_flickr8k_with_too_many_missing_is_refused(server, offered, tmp_path, faults):
    offered(211, **faults)
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=f"too many pictures are missing or do not open: delete {tmp_path / 'new'} and",
        ):
            flickr8k.fetch(None, tmp_path / "new", server.address)


def test_flickr8k_with_a_broken_archive(server, offered, tmp_path):
    offered(5)
    whole = server.files["/Flickr8k_text.zip"]
    server.files["/Flickr8k_text.zip"] = whole[:307]
    with pytest.raises(ValueError, match="not a whole archive.* It is deleted: run again"):
        flickr8k.fetch(None, tmp_path / "new", server.address)
    assert not (tmp_path / "new/Flickr8k_text.zip").exists()
    server.files["/Flickr8k_text.zip"] = whole
    flickr8k.fetch(None, tmp_path / "new", server.address)
    assert_flickr8k(tmp_path / "new", *photos(5))
    assert [name for name, *_ in server.requests].count("/Flickr8k_Dataset.zip") == 1


def test_flickr8k_from_archives(tmp_path):
    source = archives(tmp_path / "source/deep", *photos(5))
    before = tree(source)
    flickr8k.fetch(source.parent, tmp_path / "new", "nowhere")
    assert_flickr8k(tmp_path / "new", *photos(5))
    assert tree(source) == before
    flickr8k.fetch(source, source, "nowhere")  # unpacks them where they are
    assert before.items() < tree(source).items()


def test_flickr8k_from_a_broken_archive_keeps_it(tmp_path):
    source = archives(tmp_path / "source", *photos(5))
    (source / "Flickr8k_Dataset.zip").write_bytes(BODY)
    with pytest.raises(ValueError, match="not a whole archive"):
        flickr8k.fetch(source, tmp_path / "new", "nowhere")
    assert (source / "Flickr8k_Dataset.zip").read_bytes() == BODY


def test_flickr8k_from_folders_with_a_part_of_it(tmp_path, capsys):
    pictures, texts = photos(13, lacking=range(2, 13))
    del texts["Flickr_8k.testImages.txt"]
    source = tmp_path / "source"
    others = {
        "Flicker8k_Dataset/Thumbs.db": b"x",
        "__MACOSX/Flicker8k_Dataset/000_photo.jpg": b"x",
        "notes.txt": b"mine",
    }
    files = (
        {f"Flicker8k_Dataset/{name}": content for name, content in pictures.items()}
        | texts
        | others
    )
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    del texts["readme.txt"]
    for _ in range(2):
        flickr8k.fetch(source, tmp_path / "new", "nowhere")
        assert_flickr8k(tmp_path / "new", pictures, texts)
        out = capsys.readouterr().out
        assert (
            out.count("no such file") == 5
            and "13 pictures have captions; 11 of them are missing" in out
        )
        assert (
            "without Flickr_8k.testImages.txt there is no test split" in out
            and "no dev split" not in out
        )
    with pytest.raises(ValueError, match="too many"):  # an error if all of it is wanted
        flickr8k.fetch(None, tmp_path / "new", "nowhere")


def test_flickr8k_from_a_folder_with_corrupt_pictures_only(tmp_path):
    source = archives(tmp_path / "source", *photos(3, lacking=[0], corrupt=[1, 2]))
    with pytest.raises(ValueError, match="too many"):
        flickr8k.fetch(source, tmp_path / "new", "nowhere")


def test_flickr8k_from_a_folder_without_it(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"neither Flickr8k_Dataset.zip nor its contents \(Flicker8k_Dataset\)",
    ):
        flickr8k.fetch(tmp_path / "source", tmp_path / "new", "nowhere")
    pack(tmp_path / "source/Flickr8k_Dataset.zip", [("x.jpg", jpeg(1))])
    with pytest.raises(
        FileNotFoundError, match=r"neither Flickr8k_text.zip nor its contents \(Flickr8k_text\)"
    ):
        flickr8k.fetch(tmp_path / "source", tmp_path / "new", "nowhere")
    pack(tmp_path / "source/Flickr8k_text.zip", [("readme.txt", b"")])
    with pytest.raises(FileNotFoundError, match="Flickr8k.token.txt: not found; delete"):
        flickr8k.fetch(tmp_path / "source", tmp_path / "new", "nowhere")


def test_the_archives_of_a_killed_run_are_removed(server, offered, tmp_path):
    offered(5)
    flickr8k.fetch(None, tmp_path / "new", server.address)
    (tmp_path / "new/Flickr8k_Dataset.zip").write_bytes(BODY)
    flickr8k.fetch(None, tmp_path / "new", server.address)
    assert_flickr8k(tmp_path / "new", *photos(5))


# -------------------------------------------------------------------------------------------------
# easy-VQA.

FEW = {"train": (3, 5), "test": (2, 7)}  # pictures and questions


def easy_files():
    """The files of train/ and test/, as many as FEW."""
    files = {}
    for part, (pictures, questions) in FEW.items():
        entries = [["what is it?", "circle", i % pictures] for i in range(questions)]
        files[f"{part}/questions.json"] = json.dumps(entries).encode()
        for i in range(pictures):
            files[f"{part}/images/{i}.png"] = f"{part} {i}".encode()
    return files


@pytest.fixture
def wheel(tmp_path):
    """A package of easy-VQA with few pictures, in a folder of its own."""
    folder = tmp_path / "source/wheels"
    folder.mkdir(parents=True)
    others = {
        "easy_vqa/__init__.py": b"raise SystemExit('imported')",
        "easy_vqa/data/.DS_Store": b"x",
        "easy_vqa-1.0.dist-info/LICENSE": b"MIT",
    }
    files = {f"easy_vqa/data/{name}": content for name, content in easy_files().items()}
    return pack(folder / easy_vqa.WHEEL, [*files.items(), *others.items()])


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def fetch_easy(source, folder, wheel=None):
    """`easy_vqa.fetch` for few pictures, and this wheel as the official one."""
    easy_vqa.fetch(source, folder, sha256(wheel) if wheel else SUM, FEW)


def test_easy_vqa_from_the_package(wheel, tmp_path, capsys):
    folder = tmp_path / "new/easy-vqa"
    fetch_easy(tmp_path / "source", folder, wheel)
    assert tree(folder) == easy_files()
    assert capsys.readouterr().out.endswith(f"{folder}: 5 pictures and 12 questions\n")
    assert [path.name for path in folder.parent.iterdir()] == ["easy-vqa"]
    fetch_easy(None, folder)  # without pip
    assert capsys.readouterr().out.startswith(f"{folder}: nothing to do")


def test_easy_vqa_from_an_unpacked_copy(tmp_path):
    source = tmp_path / "source/deep/easy_vqa/data"
    write_files(source, easy_files() | {"train/images/.DS_Store": b"x", "answers.txt": b"yes"})
    write_files(tmp_path / "source/a", {"questions.json": b"[]"})  # found first, but another's
    fetch_easy(tmp_path / "source", tmp_path / "new")
    assert tree(tmp_path / "new") == easy_files()


def fake_pip(tmp_path, monkeypatch, code):
    """Run this code instead of pip; its arguments are pip's."""
    script = tmp_path / "pip.py"
    script.write_text(code)
    monkeypatch.setattr(easy_vqa, "PIP", [sys.executable, str(script)])


def test_pip_downloads_the_package_of_easy_vqa(wheel, tmp_path, monkeypatch):
    code = (
        "import os, shutil, sys\n"
        "option, folder, package = sys.argv[1:]\n"
        "assert (option, package) == ('--dest', 'easy-vqa==1.0')\n"
        "os.makedirs(folder)\n"
        f"shutil.copy({str(wheel)!r}, folder)\n"
    )
    fake_pip(tmp_path, monkeypatch, code)
    fetch_easy(None, tmp_path / "new", wheel)
    assert tree(tmp_path / "new") == easy_files()
    assert wheel.is_file()


@pytest.mark.parametrize(
    "code, reason",
    [
        ("raise SystemExit('looking\\nERROR: no such package')", "fails: ERROR: no such package"),
        ("raise SystemExit(3)", "fails: no message"),
    ],
)
def test_easy_vqa_without_pip_or_network(code, reason, tmp_path, monkeypatch, capsys):
    fake_pip(tmp_path, monkeypatch, code)
    monkeypatch.chdir(tmp_path)
    assert main(easy_vqa.fetch, easy_vqa.LICENCE, easy_vqa.OFFLINE, []) == 2
    out, error = capsys.readouterr()
    assert "MIT licence. Copyright (c) 2019 Victor Zhou" in out
    assert reason in error and error.endswith("--from FOLDER\n") and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_pip_downloads_easy_vqa_without_building_it_or_its_dependencies():
    assert {"--no-deps", "--only-binary=:all:"} < set(easy_vqa.PIP)


def test_easy_vqa_refuses_a_package_with_a_wrong_checksum(wheel, tmp_path):
    with pytest.raises(ValueError, match=f"{easy_vqa.WHEEL}: not the official package"):
        easy_vqa.fetch(tmp_path / "source", tmp_path / "new", SUM, FEW)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("test/images/1.png", None, "test: 1 pictures and 7 questions, not 2 and 7: "),
        ("train/images/3.png", b"x", "train: 4 pictures and 5 questions, not 3 and 5: "),
        ("train/questions.json", b"[[], []]", "train: 3 pictures and 2 questions, not 3 and 5: "),
        ("train/questions.json", b"[", "train/questions.json: not JSON"),
        ("train/questions.json", b"7", "train/questions.json: a list was expected"),
    ],
)
def test_an_incomplete_copy_of_easy_vqa_is_refused(name, content, words, tmp_path):
    files = easy_files()
    if content is None:
        del files[name]
    else:
        files[name] = content
    write_files(tmp_path / "source", files)
    with pytest.raises(ValueError, match=words) as error:
        fetch_easy(tmp_path / "source", tmp_path / "new")
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match=words):  # an existing folder is checked, too
        fetch_easy(None, tmp_path / "source")


def test_easy_vqa_that_lost_its_questions_is_refused(tmp_path):
    write_files(tmp_path / "new", easy_files())
    (tmp_path / "new/test/questions.json").unlink()
    with pytest.raises(ValueError, match="2 pictures and 0 questions, not 2 and 7: delete .*new"):
        fetch_easy(None, tmp_path / "new")


def test_easy_vqa_from_a_folder_without_it(tmp_path):
    write_files(tmp_path / "source/train", {"questions.json": b"[]"})
    with pytest.raises(FileNotFoundError, match="neither easy_vqa-1.0-py3-none-any.whl nor its"):
        fetch_easy(tmp_path / "source", tmp_path / "new")


# -------------------------------------------------------------------------------------------------
# Free Spoken Digit Dataset.


def recordings(*speakers):
    """{file name: content} of all recordings of these speakers."""
    names = [
        f"{digit}_{speaker}_{i}.wav"
        for speaker in speakers
        for digit in range(10)
        for i in range(50)
    ]
    return {name: f"RIFF {name}".encode() for name in names}


def joined_sum(files):
    return hashlib.sha256(b"".join(files.values())).hexdigest()


SPEAKERS = ("ann", "bob", "eve")
SPEAKER_SUMS = {speaker: joined_sum(recordings(speaker)) for speaker in SPEAKERS}


def fsdd_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = "free-spoken-digit-dataset-1.0.10"
    others = [(f"{folder}/README.md", b"x"), (f"{folder}/utils/trimmer.py", b"raise SystemExit")]
    inside = [(f"{folder}/recordings/{name}", content) for name, content in files.items()]
    return pack(path, others + inside)


@pytest.fixture
def digits(server, tmp_path):
    """Puts an archive of these recordings on the server, and returns its address."""

    def offer(files):
        path = fsdd_archive(tmp_path / "offered.zip", files)
        server.files = {"/digits.zip": path.read_bytes()}
        path.unlink()
        return f"{server.address}/digits.zip"

    return offer


def test_fsdd(server, digits, tmp_path, capsys):
    folder = tmp_path / "new/fsdd"
    address = digits(recordings(*SPEAKERS))
    for _ in range(2):
        fsdd.fetch(None, folder, address, SPEAKER_SUMS)
        assert tree(folder / "recordings") == recordings(*SPEAKERS)
        assert [path.name for path in folder.iterdir()] == ["recordings"]
        assert len(server.requests) == 1
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert "all recordings of ann, bob, eve; their checksums are right" in first
    assert second.startswith(f"{folder / 'recordings'}: nothing to do")


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_fsdd_fetches_a_lost_or_changed_recording_again(change, digits, tmp_path):
    address = digits(recordings(*SPEAKERS))
    fsdd.fetch(None, tmp_path / "new", address, SPEAKER_SUMS)
    path = tmp_path / "new/recordings/7_bob_31.wav"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(OTHER)
    fsdd.fetch(None, tmp_path / "new", address, SPEAKER_SUMS)
    assert tree(tmp_path / "new/recordings") == recordings(*SPEAKERS)


@pytest.mark.parametrize("packed", [False, True])
def test_fsdd_from_a_folder_with_some_of_the_speakers(packed, digits, server, tmp_path, capsys):
    files = recordings("bob", "eve", "zoe") | {"3_eve_7.wav": OTHER}
    if packed:
        fsdd_archive(tmp_path / "source" / fsdd.ARCHIVE, files)
    else:
        write_files(tmp_path / "source/a", {"0_bob_0.wav": OTHER})  # found first, but incomplete
        write_files(tmp_path / "source/deep/recordings", files)
    before = tree(tmp_path / "source")
    for _ in range(2):
        fsdd.fetch(tmp_path / "source", tmp_path / "new", "nowhere", SPEAKER_SUMS)
        assert tree(tmp_path / "new/recordings") == recordings("bob")
        assert tree(tmp_path / "source") == before
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2].endswith("all recordings of bob; their checksums are right")
        assert lines[-1].endswith("or not the official ones: ann, eve")
    fsdd.fetch(None, tmp_path / "new", digits(recordings(*SPEAKERS)), SPEAKER_SUMS)
    assert tree(tmp_path / "new/recordings") == recordings(*SPEAKERS)


@pytest.mark.parametrize(
    "files",
    [recordings("ann", "bob"), recordings(*SPEAKERS) | {"9_eve_49.wav": OTHER}],
    ids=["lacking", "wrong"],
)
def test_fsdd_refuses_an_archive_without_all_official_recordings(files, digits, tmp_path):
    address = digits(files)
    with pytest.raises(ValueError, match="no complete official recordings of eve") as error:
        fsdd.fetch(None, tmp_path / "new", address, SPEAKER_SUMS)
    assert str(error.value).startswith(address) and "\n" not in str(error.value)


def test_fsdd_with_a_broken_archive(server, digits, tmp_path):
    address = digits(recordings(*SPEAKERS))
    whole = server.files["/digits.zip"]
    server.files["/digits.zip"] = whole[:50021]
    with pytest.raises(ValueError, match="not a whole archive.* It is deleted: run again"):
        fsdd.fetch(None, tmp_path / "new", address, SPEAKER_SUMS)
    assert not list((tmp_path / "new").iterdir())
    server.files["/digits.zip"] = whole
    fsdd.fetch(None, tmp_path / "new", address, SPEAKER_SUMS)
    assert tree(tmp_path / "new/recordings") == recordings(*SPEAKERS)


def test_fsdd_refuses_an_archive_that_is_too_large(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(fsdd, "MAX_BYTES", 5003)
    with pytest.raises(ValueError, match="more than 5,003 are refused"):
        fsdd.fetch(None, tmp_path / "new", digits(recordings("ann")), SPEAKER_SUMS)


def test_fsdd_from_a_folder_without_it(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(ValueError, match="source: no complete official recordings of ann, bob, e"):
        fsdd.fetch(tmp_path / "source", tmp_path / "new", "nowhere", SPEAKER_SUMS)
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        fsdd.fetch(tmp_path / "nowhere", tmp_path / "new", "nowhere", SPEAKER_SUMS)


def test_fsdd_without_a_network(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fsdd.fetch, "__defaults__", (fsdd.FOLDER, server.url + "x", fsdd.SUMS))
    assert main(fsdd.fetch, fsdd.LICENCE, fsdd.OFFLINE, []) == 2
    out, error = capsys.readouterr()
    assert "CC BY-SA 4.0" in out
    assert error.endswith("--from FOLDER\n") and error.count("\n") == 1


@pytest.mark.skipif(
    not OFFICIAL_FSDD.is_dir(), reason="needs the recordings of FSDD beside the repository"
)
def test_fsdd_as_a_command(tmp_path):
    shutil.copytree(REPOSITORY / "data_scripts", tmp_path / "data_scripts")
    command = [sys.executable, "-m", "data_scripts.fsdd", "--from", OFFICIAL_FSDD]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(fsdd.LICENCE) and "george, jackson, lucas, nico" in run.stdout
    name = "7_yweweler_31.wav"
    copied = tmp_path / "data/fsdd/recordings" / name
    assert copied.read_bytes() == (OFFICIAL_FSDD / "recordings" / name).read_bytes()
