# SPDX-License-Identifier: Apache-2.0
"""Small weights, small clips, and a machine without LPIPS' backbone."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_clips import moving_square

import pcvideo
from pcvideo.data import procedural_digits
from pcvideo.video_io import write_video


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No cached backbone, no cached MNIST, and the thread count as it was."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PCVIDEO_DATA", raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def small_model(channels: int) -> pcvideo.MSPN:
    torch.manual_seed(channels)
    return pcvideo.MSPN(in_channels=channels, levels=2, channels=(4, 6, 6), hidden_channels=3, residual=True).eval()


@pytest.fixture
def grey_model(tmp_path: Path) -> str:
    """A folder with the weights of a model with one channel."""
    small_model(1).save_pretrained(tmp_path / "grey")
    return str(tmp_path / "grey")


@pytest.fixture
def colour_model(tmp_path: Path) -> str:
    """A folder with the weights of a model with three channels."""
    small_model(3).save_pretrained(tmp_path / "colour")
    return str(tmp_path / "colour")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with three videos of 24 frames."""
    for seed, name in enumerate(("hello", "thanks", "walk")):
        write_video(tmp_path / "videos" / f"{name}.mp4", moving_square(seed, 24, 32, 48), 12)
    return tmp_path / "videos"


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """A folder with digits in MNIST's own form: train plain, test compressed."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, seed in (("train", 3), ("t10k", 4)):
        digits = procedural_digits(2, seed=seed)
        content = struct.pack(">4B3I", 0, 0, 8, 3, *digits.shape) + digits.tobytes()
        path = folder / f"{name}-images-idx3-ubyte"
        if name == "train":
            path.write_bytes(content)
        else:
            path.with_suffix(".gz").write_bytes(gzip.compress(content))
    return folder
