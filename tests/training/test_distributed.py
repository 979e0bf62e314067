# SPDX-License-Identifier: Apache-2.0
"""One, two and four processes train alike, whole (DDP) and sharded (FSDP2), and stop and resume together."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from ranks_helpers import Added, InTurn, StoppedOnOneRank, join_all, rank, start_ranks
from safetensors.torch import load_file
from torch import nn
from training_helpers import Clips, assert_same_tensors, read_log, self_feeding, tiny_model, tiny_trainer

import pcvideo
from pcvideo import _files
from pcvideo.losses import PyramidLoss
from pcvideo.training import SelfFeeding, TrainingStopped, newest_checkpoint
from pcvideo.training.batches import epoch_batches
from pcvideo.training.ranks import Ranks, split_evenly

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Case(NamedTuple):
    """What is trained, from fresh parts in each process."""

    options: dict[str, Any]
    model: Callable[[], nn.Module] = tiny_model
    strategy: Callable[[], Any] = self_feeding


# Adam makes of a rounding error in a gradient near zero a whole step: small ones.
STEPS = {"steps": 4, "lr": 0.002}
CASES = {
    # 5 clips are no whole number of shares, for 2 ranks or for 4; 7 to validate on are none either.
    "uneven shares": Case({"batch_size": 5, "ema": 0.8, "clip_norm": 1.0, "validate_every": 2}),
    "added losses": Case({"batch_size": 5}, strategy=lambda: Added(context=2, horizon=2, loss=PyramidLoss())),
    "networks in turn, parts of shares": Case({"batch_size": 9, "accumulate": 2, "ema": 0.5}, strategy=InTurn),
    # Gains of the modulation are single numbers, which can't be sharded.
    "frozen parts and single numbers": Case(
        {"batch_size": 4, "freeze": ["cells.1"], "rates": {"cells.0.*": 0.3}, "clip_norm": 1.0, "ema": 0.5},
        model=lambda: tiny_model(levels=2, channels=(4, 8, 8), fusion="modulate"),
    ),
}
ENGINES = ("ddp", "fsdp")
OF_FOUR = ("uneven shares", "networks in turn, parts of shares")


def train(folder: Path, name: str, engine: str = "auto", **options: Any) -> Any:
    """Train in this process's place; alone it takes a batch as a whole."""
    case = CASES[name]
    settings = STEPS | case.options | options
    trainer = tiny_trainer(folder, case.strategy(), model=case.model(), engine=engine, **settings)
    trainer.fit(Clips(), Clips(7), resume="auto")
    return trainer


def stop_and_go_on(folder: Path, engine: str) -> None:
    options = {"batch_size": 5, "ema": 0.8, "steps": 6, "validate_every": 4, "engine": engine}
    tiny_trainer(folder / "unbroken", **options).fit(Clips(), Clips(7))
    try:
        tiny_trainer(folder / "broken", StoppedOnOneRank(), **options).fit(Clips(), Clips(7))
    except TrainingStopped as stopped:
        (folder / f"code-{rank()}").write_text(f"{stopped.code} {Path(stopped.checkpoint).name}")
    tiny_trainer(folder / "broken", model=tiny_model(9), **options).fit(Clips(), Clips(7), resume="auto")


def train_all(folder: Path, half_done: Path | None) -> None:
    told = (folder / f"log-{rank()}.txt").open("w")
    logging.getLogger("pcvideo").addHandler(logging.StreamHandler(told))
    for engine in ENGINES:
        for name in CASES if half_done is None else OF_FOUR:
            train(folder / engine / name, name, engine)
        if half_done is None:
            stop_and_go_on(folder / engine, engine)
            train(folder / engine / "half", "uneven shares", engine, steps=2, schedule="constant")
    if half_done is not None:
        # What two sharded ranks began, four whole ones go on with.
        train(half_done, "uneven shares", "ddp", schedule="constant")
    told.flush()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runs of one process, and one for each number of ranks."""
    folder = tmp_path_factory.mktemp("runs")
    for name in CASES:
        train(folder / "1" / name, name, accumulate=1)
    train(folder / "1" / "half", "uneven shares", schedule="constant")
    for count, half_done in ((2, None), (4, folder / "2" / "fsdp" / "half")):
        (folder / str(count)).mkdir()
        join_all(start_ranks(count, train_all, folder / str(count), half_done, told=folder / "told"), folder / "told")
    return folder


def assert_same_numbers(one: Path, other: Path) -> None:
    expected, rows = read_log(one), read_log(other)
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    values, exact = ([float(value) for _, _, value in each] for each in (rows, expected))
    assert values == pytest.approx(exact, rel=1e-5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("count", "name"), [*((2, name) for name in CASES), *((4, name) for name in OF_FOUR)])
def test_losses_gradients_and_scores_do_not_depend_on_the_number_of_ranks(
    count: int, engine: str, name: str, runs: Path
) -> None:
    alone, many = runs / "1" / name, runs / str(count) / engine / name
    assert_same_numbers(alone, many)
    for file in ("training.safetensors", "model.safetensors"):
        saved, exact = (load_file(newest_checkpoint(folder) / file) for folder in (many, alone))
        assert saved.keys() == exact.keys()
        for key, tensor in exact.items():
            torch.testing.assert_close(
                saved[key], tensor, rtol=1e-3, atol=2e-4, msg=lambda text, key=key: f"{key}: {text}"
            )


@pytest.mark.slow
def test_in_turn_each_network_is_trained_at_its_own_rate_and_the_balance_is_that_of_all_clips(runs: Path) -> None:
    gaps = [
        float(value) for _, name, value in read_log(runs / "1" / "networks in turn, parts of shares") if name == "gap"
    ]
    for engine in ENGINES:
        state = load_file(
            newest_checkpoint(runs / "2" / engine / "networks in turn, parts of shares") / "training.safetensors"
        )
        assert float(state["strategy.balance"]) == pytest.approx(sum(gaps), rel=1e-4)
        steps = {name.split(".")[1]: float(value) for name, value in state.items() if name.endswith(".step")}
        # Four steps: every second one is the critic's.
        assert steps == {"model": 2.0, "critic": 2.0}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_signal_to_one_rank_stops_all_at_one_step_and_the_run_goes_on_bit_for_bit(engine: str, runs: Path) -> None:
    folder = runs / "2" / engine
    assert [(folder / f"code-{number}").read_text() for number in range(2)] == ["143 step-00000003"] * 2
    assert read_log(folder / "broken") == read_log(folder / "unbroken")
    tensors = [load_file(newest_checkpoint(folder / name) / "training.safetensors") for name in ("broken", "unbroken")]
    assert_same_tensors(*tensors)


@pytest.mark.slow
def test_a_sharded_checkpoint_is_gone_on_with_by_another_number_of_ranks_and_told_so(runs: Path) -> None:
    assert_same_numbers(runs / "1" / "half", runs / "2" / "fsdp" / "half")
    told = (runs / "4" / "log-0.txt").read_text()
    assert "resumed with other ranks than saved: processes 2 -> 4" in told
    assert "steps 2 -> 4, engine fsdp -> ddp" in told
    assert "resumed with other" not in (runs / "4" / "log-1.txt").read_text()


@pytest.mark.slow
def test_the_first_rank_alone_writes_and_what_it_writes_loads_anywhere(runs: Path) -> None:
    for engine in ENGINES:
        folder = runs / "4" / engine / "uneven shares"
        assert json.loads((folder / "run.json").read_text())["ranks"] == {"processes": 4}
        rows = [row[:2] for row in read_log(folder)]
        assert len(set(rows)) == len(rows)
        model = pcvideo.MSPN.from_pretrained(folder / "best")
        assert model(torch.rand(1, 2, 1, 16, 16), 2).shape == (1, 2, 1, 16, 16)


def test_shares_hold_every_clip_once_and_differ_by_one_at_most() -> None:
    for size in range(1, 12):
        for count in range(1, size + 1):
            shares = split_evenly(range(size), count)
            assert [clip for share in shares for clip in share] == list(range(size))
            assert {len(share) for share in shares} <= {size // count, size // count + 1}


def test_a_process_that_is_alone_agrees_with_itself() -> None:
    ranks = Ranks()
    assert (ranks.highest(3), ranks.gather("a"), ranks.from_first(lambda: 7), ranks.are_many) == (3, ["a"], 7, False)


def test_fewer_clips_in_a_batch_than_parts_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=3 is too small .* accumulate=4: .* batch_size=4"):
        tiny_trainer(tmp_path, batch_size=3, accumulate=4)


class PoisonedShare(Clips):
    """One clip of the second batch is NaN, so that one rank alone meets it."""

    def __getitem__(self, index: int) -> torch.Tensor:
        clip = super().__getitem__(index)
        return clip * float("nan") if index == epoch_batches(10, 4, seed=0, epoch=0)[1][0] else clip


class Interrupting(SelfFeeding):
    """The second rank is sent SIGTERM in its first forecast, while the first still forecasts."""

    def forecast(self, batch: Any, model: Any) -> Any:
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forecast(batch, model)


def meet_with_odd_cases(folder: Path, engine: str) -> None:
    options = {"batch_size": 4, "engine": engine, "steps": 2}
    trainer = tiny_trainer(folder / "poisoned", **options)
    before = trainer.optimizer.state_dict()["state"]
    trainer.fit(PoisonedShare())
    assert trainer._bad_steps == 1
    assert not before

    try:
        tiny_trainer(folder / "validating", Interrupting(context=2, horizon=2), **options).fit(Clips(), Clips(9))
    except TrainingStopped as stopped:
        (folder / f"code-{rank()}").write_text(f"{stopped.code} {Path(stopped.checkpoint).name}")
    # Nothing to do is no reason to wait: a single clip is validated on by one rank alone.
    tiny_trainer(folder / "single", **options).fit(Clips(), Clips(1))

    (folder / "full").mkdir(exist_ok=True)
    if rank() == 0:
        _files.write_tensors = full_disk
    trainer = tiny_trainer(folder / "full", on_save_error="warn", **options)
    trainer.fit(Clips())
    try:
        tiny_trainer(folder / "full", **options).fit(Clips())
    except (OSError, RuntimeError) as error:
        (folder / f"error-{rank()}").write_text(f"{type(error).__name__}: {error}")


def full_disk(path: Path, *rest: Any) -> None:
    raise OSError(28, "No space left on device", str(path))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_what_befalls_one_rank_is_decided_on_by_all(engine: str, tmp_path: Path) -> None:
    join_all(start_ranks(2, meet_with_odd_cases, tmp_path, engine, told=tmp_path), tmp_path)
    losses = [float(value) for _, name, value in read_log(tmp_path / "poisoned") if name == "loss"]
    assert [math.isfinite(loss) for loss in losses] == [True, False]
    state = load_file(newest_checkpoint(tmp_path / "poisoned") / "training.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    assert {float(tensor) for name, tensor in state.items() if name.endswith(".step")} == {1.0}
    assert [(tmp_path / f"code-{number}").read_text() for number in range(2)] == ["143 step-00000002"] * 2
    assert (tmp_path / "single" / "best").is_dir()
    assert newest_checkpoint(tmp_path / "full") is None
    assert (tmp_path / "error-0").read_text().startswith("OSError: [Errno 28] No space left")
    assert (tmp_path / "error-1").read_text().startswith("RuntimeError: rank 0 failed: OSError: [Errno 28] No space")
