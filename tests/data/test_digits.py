# SPDX-License-Identifier: Apache-2.0
import contextlib
import gzip
import hashlib
import os
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pcvideo.data import digits
from pcvideo.data.digits import download_mnist, find_mnist, read_idx
from pcvideo.data.drawn_digits import procedural_digits

SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
IDX = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24))


# Reading


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_gives_its_array_plain_or_packed(tmp_path, packed):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(IDX) if packed else IDX)
    array = read_idx(path)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IMAGES)
    array[0, 0, 0] = 9  # writable


def test_labels_have_one_dimension(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"\1\2\3\4\5")
    assert read_idx(path).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        IDX[:3],
        IDX[:10],
        IDX[:-1],
        IDX + b"\0",
        b"<!doctype html><html></html>",
        struct.pack(">BBBBIII", 0, 0, 0x0D, 3, 2, 3, 4) + bytes(96),
        struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 4) + bytes(24),
        struct.pack(">BBBBIII", 0, 0, 8, 3, 0, 28, 28),
        gzip.compress(IDX)[:-12],
        gzip.compress(IDX)[:20] + b"\xff\xff" + gzip.compress(IDX)[22:],
        gzip.compress(IDX[:-1]),
        gzip.compress(b"something else"),
        b"\x1f\x8b\xff",
    ],
    ids=[
        "empty", "3 bytes", "half a header", "a byte short", "a byte long", "html", "floats", "huge", "no images",
        "gzip cut", "gzip damaged", "packed short", "packed foreign", "no gzip",
    ],
)  # fmt: skip
def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="IDX file"):
        read_idx(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte", "t10k-images.idx3-ubyte.gz",
        "mnist/t10k-images-idx3-ubyte.gz", "MNIST/raw/t10k-images-idx3-ubyte",
    ],
)  # fmt: skip
def test_mnist_is_found_in_its_usual_spellings(tmp_path, name):
    assert find_mnist(tmp_path, "test") is None
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(IDX)
    assert find_mnist(tmp_path, "test") == tmp_path / name
    assert find_mnist(tmp_path, "train") is None
    with pytest.raises(ValueError, match="split must"):
        find_mnist(tmp_path, "t10k")


# Downloading, against a server on this machine


GOOD = gzip.compress(IDX)
OTHER = gzip.compress(IDX[:-1] + b"x")


class Mirror(BaseHTTPRequestHandler):
    """The first part of the path says how this mirror behaves."""

    def do_GET(self):
        self.server.asked.append(self.path)
        kind = self.path.split("/")[1]
        bodies = {"html": b"<html>sign in</html>", "other": OTHER, "cut": GOOD[:30], "large": bytes(10_000)}
        body = bodies.get(kind, GOOD)
        if kind == "slow":
            time.sleep(1)
        self.send_response(404 if kind == "missing" else 200)
        self.send_header("Content-Length", str(len(GOOD) if kind == "cut" else len(body)))
        self.end_headers()
        # The client may have given up, as it should.
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    # The real content can't be had offline: the checksums are those of the small stand-in.
    checksum = hashlib.md5(IDX).hexdigest()
    monkeypatch.setattr(digits, "_MD5", {"train": checksum, "test": checksum})
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as running:
        running.asked = []
        running.at = lambda kind: f"http://127.0.0.1:{running.server_port}/{kind}/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_download_brings_both_splits_and_is_not_repeated(server, tmp_path, capfd):
    folder = tmp_path / "new" / "folder"
    assert download_mnist(folder, mirrors=[server.at("good")]) == folder
    for split in ("train", "test"):
        np.testing.assert_array_equal(read_idx(find_mnist(folder, split)), IMAGES)
    assert len(server.asked) == 2
    download_mnist(folder, mirrors=[server.at("good")])
    assert len(server.asked) == 2
    assert capfd.readouterr() == ("", "")


def test_without_a_folder_the_cache_is_filled(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    download_mnist(split="test", mirrors=[server.at("good")])
    assert (tmp_path / ".cache/pcvideo/mnist/t10k-images-idx3-ubyte.gz").read_bytes() == GOOD


@pytest.mark.parametrize("kind", ["missing", "html", "other", "cut"])
def test_after_a_bad_mirror_the_next_is_asked(server, tmp_path, kind):
    download_mnist(tmp_path, split="test", mirrors=[server.at(kind), server.at("good")])
    assert [path.split("/")[1] for path in server.asked] == [kind, "good"]
    assert [path.name for path in tmp_path.iterdir()] == ["t10k-images-idx3-ubyte.gz"]


def test_when_every_mirror_fails_the_error_lists_what_each_said(server, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "_LARGEST_DOWNLOAD", 5000)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    kinds = ["missing", "html", "other", "cut", "large", "slow"]
    with pytest.raises(ConnectionError) as caught:
        download_mnist(tmp_path, split="test", mirrors=[*map(server.at, kinds), closed, "no address"], timeout=0.2)
    told = str(caught.value).splitlines()[1:9]
    words = ["404", "not a gzip", "md5", "ended after 30", "more than 5000", "time", "refused", "unknown url"]
    for line, word in zip(told, words, strict=True):
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_unpacks_without_end_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "_LARGEST_UNPACKED", 10)
    with pytest.raises(ConnectionError, match="unpacks to more than 10 bytes"):
        download_mnist(tmp_path, split="test", mirrors=[server.at("good")])


def test_a_damaged_file_in_the_folder_is_replaced(server, tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(GOOD[:-3])
    download_mnist(tmp_path, split="test", mirrors=[server.at("good")])
    assert (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes() == GOOD


def test_a_failure_keeps_what_was_there(server, tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(OTHER)
    with pytest.raises(ConnectionError):
        download_mnist(tmp_path, split="test", mirrors=[server.at("html")])
    assert (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes() == OTHER


def test_bad_download_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="split must"):
        download_mnist(tmp_path, split="t10k")
    with pytest.raises(ValueError, match="mirrors must"):
        download_mnist(tmp_path, mirrors=[])
    with pytest.raises(ValueError, match="mirrors must"):
        download_mnist(tmp_path, mirrors="http://one")


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs MNIST")
def test_the_checksums_are_those_of_mnist():
    packed = (SHARED / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    assert digits._fault_of(packed, digits._MD5["test"]) is None
    assert "md5" in digits._fault_of(packed, digits._MD5["train"])


# Drawing


@pytest.fixture(scope="module")
def drawn():
    return procedural_digits(30, seed=0)


def test_drawn_digits_depend_on_the_seed_alone(drawn):
    assert drawn.shape == (300, 28, 28)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(procedural_digits(2, seed=0), drawn[:20])
    assert not np.array_equal(procedural_digits(2, seed=1), drawn[:20])
    assert len(np.unique(drawn.reshape(300, -1), axis=0)) == 300


def test_drawn_digits_lie_as_mnist_does(drawn):
    for image in drawn:
        rows, columns = np.nonzero(image)
        assert np.ptp(rows) < 20
        assert np.ptp(columns) < 20
        # MNIST centres the mass; ours differs from it only where strokes cross.
        assert np.average(rows, weights=image[rows, columns]) == pytest.approx(13.5, abs=1.2)
        assert np.average(columns, weights=image[rows, columns]) == pytest.approx(13.5, abs=1.2)


def test_drawn_digits_are_as_bright_as_mnist(drawn):
    # MNIST: mean 0.131, standard deviation 0.308.
    assert drawn.mean() / 255 == pytest.approx(0.131, abs=0.02)
    assert drawn.std() / 255 == pytest.approx(0.308, abs=0.03)


def test_drawn_digits_can_be_told_apart(drawn):
    means = drawn.reshape(30, 10, -1).mean(axis=0)
    others = procedural_digits(10, seed=5).reshape(100, -1).astype(float)
    nearest = ((others[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == np.arange(100) % 10).mean() > 0.8


@pytest.mark.parametrize(("options", "words"), [({"per_class": 0}, "per_class must"), ({"seed": -1}, "seed must")])
def test_bad_drawing_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        procedural_digits(**options)
