# SPDX-License-Identifier: Apache-2.0
"""Whole runs of adversarial training: resumed in the middle of anything, and what the balance promises."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import Clips, SignalAt, assert_same_tensors, read_log, self_feeding, tiny_model, tiny_trainer

from pcvideo.data import MovingMNIST, procedural_digits
from pcvideo.models import MSPN, FrameDiscriminator
from pcvideo.training import Adversarial, Alternating, Balanced, SelfFeeding, Trainer, TrainingStopped


def tiny_discriminator(**options: Any) -> FrameDiscriminator:
    torch.manual_seed(1)
    return FrameDiscriminator(in_channels=1, channels=(3, 4, 5), **options)


def adversarial(**options: Any) -> Adversarial:
    regime = options.pop("regime", None) or self_feeding()
    discriminator = options.pop("discriminator", None) or tiny_discriminator()
    return Adversarial(regime, discriminator, **options)


RUNS: dict[str, dict[str, Any]] = {
    "balanced": {"turns": Balanced, "pixel_steps": 2},
    "alternating, with a penalty on the slope": {
        "turns": lambda: Alternating(discriminator_steps=2),
        "gradient_penalty": 1.0,
        "discriminator": lambda: tiny_discriminator(norm=None),
    },
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_resumed_in_the_middle_of_a_phase_equals_the_unbroken_one_bit_for_bit(run: str, tmp_path: Path) -> None:
    def make() -> Adversarial:
        options = {name: made() if callable(made) else made for name, made in RUNS[run].items()}
        return adversarial(discriminator_rate=1, **options)

    settings = {"steps": 14, "lr": 0.003, "schedule": "constant"}
    unbroken = tiny_trainer(tmp_path / "unbroken", make(), checkpoint_every=1, keep=20, **settings)
    unbroken.fit(Clips())
    for step in (1, 4, 5, 7, 9):
        resumed = tiny_trainer(tmp_path / str(step), make(), model=tiny_model(seed=9), **settings)
        torch.manual_seed(77)
        resumed.fit(Clips(), resume=tmp_path / "unbroken" / "checkpoints" / f"step-{step:08d}")
        assert_same_tensors(resumed.strategy.state_dict(), unbroken.strategy.state_dict())
        later = [row for row in read_log(tmp_path / "unbroken") if row[0] > step]
        assert read_log(tmp_path / str(step)) == later


def test_a_run_that_was_stopped_by_a_signal_goes_on_alike(tmp_path: Path) -> None:
    class Stopping(SignalAt):
        """The signal comes within the regime's own forward, that is in the pixel steps."""

    settings = {"steps": 8, "lr": 0.003}
    unbroken = tiny_trainer(tmp_path / "unbroken", adversarial(pixel_steps=3), **settings)
    unbroken.fit(Clips())
    with pytest.raises(TrainingStopped):
        tiny_trainer(tmp_path / "run", adversarial(pixel_steps=3, regime=Stopping(3)), **settings).fit(Clips())
    resumed = tiny_trainer(tmp_path / "run", adversarial(pixel_steps=3), model=tiny_model(5), **settings)
    resumed.fit(Clips(), resume="auto")
    assert_same_tensors(resumed.strategy.state_dict(), unbroken.strategy.state_dict())


@pytest.mark.slow
def test_on_moving_digits_real_frames_score_higher_and_the_phases_alternate_within_their_cap(tmp_path: Path) -> None:
    cap, warm_up = 8, 15
    torch.manual_seed(0)
    model = MSPN(in_channels=1, levels=1, channels=(6, 12), hidden_channels=6, patch=4)
    strategy = Adversarial(
        SelfFeeding(context=3, horizon=3),
        FrameDiscriminator(in_channels=1, channels=(6, 8, 8), norm=None),
        turns=Balanced(max_phase_steps=cap),
        discriminator_rate=1,
    )
    clips = MovingMNIST(procedural_digits(), clips=400, frames=6, size=32, num_digits=1)
    settings = {"steps": 70, "batch_size": 3, "lr": 0.003, "schedule": "constant", "device": "cpu"}
    Trainer(model, strategy, run_dir=tmp_path, **settings).fit(clips)

    logged: dict[str, list[float]] = defaultdict(list)
    for _, name, value in read_log(tmp_path):
        logged[name].append(float(value))
    lengths = [len(list(group)) for _, group in groupby(logged["phase"])]
    assert sum(lengths) == 70
    assert len(lengths) - 1 >= 10
    assert max(lengths) <= cap
    # Not by the cap alone.
    assert min(lengths[1:-1:2]) < cap
    gaps = [real - fake for real, fake in zip(logged["real_score"], logged["predicted_score"], strict=True)]
    assert sum(gap > 0 for gap in gaps[warm_up:]) >= 0.8 * len(gaps[warm_up:])
