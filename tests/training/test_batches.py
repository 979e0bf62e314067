# SPDX-License-Identifier: Apache-2.0
"""Which clips make up which step."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from training_helpers import BatchClips, Clips, tiny_model

from pcvideo.data.clips import Window
from pcvideo.training.batches import check_clips, epoch_batches, load_batches, train_batches
from pcvideo.training.ranks import Ranks

CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "size"), [(10, 3), (8, 4), (5, 5), (7, 1)])
def test_an_epoch_takes_each_clip_once_in_full_batches(count: int, size: int) -> None:
    for epoch in range(3):
        batches = epoch_batches(count, size, seed=2, epoch=epoch)
        assert [len(batch) for batch in batches] == [size] * (count // size)
        times = Counter(index for batch in batches for index in batch)
        assert set(times) <= set(range(count))
        assert set(times.values()) == {1}


def test_the_order_depends_on_seed_and_epoch_and_every_clip_has_its_turn() -> None:
    orders = {(seed, epoch): str(epoch_batches(50, 5, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert orders[0, 1] == str(epoch_batches(50, 5, seed=0, epoch=1))
    seen = {index for epoch in range(40) for batch in epoch_batches(10, 3, seed=0, epoch=epoch) for index in batch}
    assert seen == set(range(10))


def test_huge_seeds_are_taken() -> None:
    assert len(epoch_batches(4, 2, seed=2**63 - 1, epoch=10**9)) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_number_of_workers_or_on_where_one_starts(workers: int) -> None:
    def batches(clips: Clips, step: int, count: int, num_workers: int = 0) -> list:
        made = train_batches(clips, 3, seed=4, step=step, device=CPU, num_workers=num_workers)
        return [(indices, batch) for indices, batch in islice(made, count)]

    whole = batches(BatchClips(), 0, 8)
    for start in (0, 1, 3, 5):
        part = batches(Clips(), start, 8 - start, workers)
        for (indices, batch), (expected, clips) in zip(part, whole[start:], strict=True):
            assert indices == expected
            assert torch.equal(batch, clips)


def test_each_batch_holds_the_clips_of_its_indices_as_drawn_in_that_epoch() -> None:
    for step, (indices, batch) in enumerate(islice(train_batches(Clips(), 3, seed=0, step=0, device=CPU), 7)):
        clips = Clips()
        clips.set_epoch(step // 3)
        assert torch.equal(batch, torch.stack([clips[index] for index in indices]))


def test_loading_does_not_touch_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    next(train_batches(Clips(), 3, seed=0, step=0, device=CPU))
    assert torch.equal(torch.get_rng_state(), before)


class Unlike(Clips):
    def __init__(self, item: object) -> None:
        super().__init__()
        self.item = item

    def __getitem__(self, index: int) -> object:
        return self.item


@pytest.mark.parametrize(
    ("clips", "error", "message"),
    [
        (Clips(0), ValueError, "train_clips is empty"),
        (Clips(2), ValueError, "batch_size=3 is more than the 2 clips of train_clips; take a smaller batch"),
        (Clips(frames=3), ValueError, r"context \+ horizon = 4 frames at least, got 3"),
        (Clips(channels=3), ValueError, r"train_clips\[:1\]: the model expects C=1 channels, got 3"),
        (Clips(size=17), ValueError, "nearest size that fits is 16x16"),
        (Unlike((torch.rand(4, 1, 16, 16), 3)), TypeError, r"train_clips\[0\] must be a clip.*got tuple"),
        (Unlike(torch.rand(1, 16, 16)), TypeError, r"must be a clip.*\(1, 16, 16\)"),
        (Unlike(torch.zeros(4, 1, 16, 16, dtype=torch.uint8)), TypeError, "must be float"),
        (iter([1]), TypeError, "must be a data set with a length"),
    ],
)
def test_a_data_set_that_does_not_fit_is_told_what_is_wrong(clips: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check_clips("train_clips", clips, length=4, model=tiny_model(), minimum=3)


class Troubled(Clips):
    """Clip 4 takes its worker's life, or all of its time."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble
        self.windows = [Window(Path(f"video-{index}.mp4"), 0, 4) for index in range(10)]

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 4 and self.trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 4:
            time.sleep(60)
        return super().__getitem__(index)


@pytest.mark.parametrize(("trouble", "what"), [("dies", "died"), ("hangs", r"gave nothing in time \(data_timeout\)")])
def test_a_worker_that_dies_or_hangs_is_told_in_time_with_its_files(trouble: str, what: str) -> None:
    batches = load_batches(Troubled(trouble), [[0, 1], [4, 5]], device=CPU, num_workers=1, timeout=3.0)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=what + r".* at one of the clips .*4 \(video-4\.mp4\), 5 \(video-5\.mp4\)\."):
        list(batches)
    assert time.monotonic() - started < 30


def test_an_error_in_a_clip_comes_as_it_is() -> None:
    class Broken(Clips):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise RuntimeError("frame 3 can't be decoded")

    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="frame 3 can't be decoded"):
            list(load_batches(Broken(), [[0]], device=CPU, num_workers=workers, timeout=10.0))


def test_ranks_are_given_shares_that_make_up_the_batch_of_one_process() -> None:
    alone = list(islice(train_batches(Clips(), 5, seed=1, step=3, device=CPU), 4))
    shares = [
        list(islice(train_batches(Clips(), 5, seed=1, step=3, device=CPU, ranks=Ranks(n, 3)), 4)) for n in range(3)
    ]
    for (indices, batch), *parts in zip(alone, *shares, strict=True):
        assert all(part[0] == indices for part in parts)
        assert torch.equal(torch.cat([part[1] for part in parts]), batch)
