# SPDX-License-Identifier: Apache-2.0
"""Colourisation and FrameDoubling: what is shown and compared, what stands beside it, and a run that resumes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcvideo.data import TensorClips
from pcvideo.losses import RegularisedLoss, SSIMLoss, TotalVariation
from pcvideo.metrics import psnr
from pcvideo.models import FrameDoubler, Grey2RGB
from pcvideo.training import Colourisation, FrameDoubling, InPhases, Trainer


def clips(batch=2, length=6, *, channels=1, size=16, seed=0):
    return torch.rand(batch, length, channels, size, size, generator=torch.Generator().manual_seed(seed))


def colouriser(seed=0, **options):
    torch.manual_seed(seed)
    return Grey2RGB(channels=(4, 6), **options)


def doubler(seed=0, **options):
    torch.manual_seed(seed)
    return FrameDoubler(hidden_channels=(4, 6), **options)


def luma(colour):
    red, green, blue = colour.split(1, dim=-3)
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("loss", [None, RegularisedLoss(TotalVariation()), SSIMLoss()])
def test_a_colouriser_is_shown_the_luma_and_compared_with_the_colours(loss):
    model, batch = colouriser(), clips(channels=3, length=2)
    found, _ = Colourisation(loss=loss).attach(model)(batch)
    frames = batch.flatten(0, 1)
    colour = model(luma(frames))
    expected = (colour - frames).square().mean() if loss is None else loss(colour, frames)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("loss", [None, SSIMLoss()])
def test_a_doubler_is_given_every_second_frame_and_compared_with_the_others(loss, last):
    model, batch = doubler(), clips(length=6 if last else 5)
    strategy = FrameDoubling(frames=3, last=last, loss=loss).attach(model)
    assert strategy.length == batch.shape[1]
    given, truth = batch[:, [0, 2, 4]], batch[:, [1, 3, 5][: 3 if last else 2]]
    middles = model(given)[:, : truth.shape[1]]
    expected = (middles - truth).square().mean() if loss is None else loss(middles, truth)
    torch.testing.assert_close(strategy(batch)[0], expected)
    # What a longer clip has beyond is not looked at.
    torch.testing.assert_close(strategy(torch.cat((batch, clips(seed=1)), dim=1))[0], expected)


def test_validation_compares_the_frames_between_with_those_before_them():
    model, batch = doubler(), clips()
    strategy = FrameDoubling(frames=3).attach(model)
    found, truth = strategy.forecast(batch, model)
    with torch.no_grad():
        expected = model(batch[:, ::2])[:, :2]
    torch.testing.assert_close(found, expected.flatten(0, 1)[:, None])
    assert torch.equal(truth, batch[:, [1, 3]].flatten(0, 1)[:, None])
    assert torch.equal(strategy.seen(batch), batch[:, [0, 2]].flatten(0, 1)[:, None])


def test_validation_compares_colours_with_grey():
    model, batch = colouriser(), clips(channels=3, length=2)
    strategy = Colourisation().attach(model)
    found, truth = strategy.forecast(batch, model)
    frames = batch.flatten(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(found, model(luma(frames))[:, None])
    assert torch.equal(truth, frames[:, None])
    torch.testing.assert_close(strategy.seen(batch), luma(frames).expand_as(frames)[:, None])


def test_the_trainer_s_baselines_are_grey_and_the_frame_before(tmp_path):
    frames = clips(4, channels=3)
    for name, model, strategy, data, baseline, truth in [
        ("colour", colouriser(), Colourisation(), frames, luma(frames).expand_as(frames), frames),
        ("doubling", doubler(), FrameDoubling(frames=3), frames[:, :, :1], frames[:, :4:2, :1], frames[:, 1:5:2, :1]),
    ]:
        trainer = Trainer(model, strategy, run_dir=tmp_path / name, steps=1, batch_size=2, device="cpu")
        trainer.fit(TensorClips(data), TensorClips(data))
        expected = psnr(baseline.flatten(0, 1), truth.flatten(0, 1)).mean().item()
        assert trainer.metrics["copy_last/psnr"] == pytest.approx(expected, rel=1e-5)


def test_a_single_frame_is_a_clip_to_learn_colours_from(tmp_path):
    data = TensorClips(clips(4, 1, channels=3))
    trainer = Trainer(colouriser(), Colourisation(), run_dir=tmp_path, steps=2, batch_size=2, device="cpu")
    trainer.fit(data, data)
    assert Grey2RGB.from_pretrained(tmp_path / "best").config == trainer.model.config


def test_grey_clips_and_short_ones_are_refused_before_the_first_step(tmp_path):
    for model, strategy, data, words in [
        (colouriser(), Colourisation(), clips(4), "expects C=3 channels, got 1"),
        (doubler(), FrameDoubling(frames=4), clips(4), "= 8 frames at least, got 6"),
        (doubler(), FrameDoubling(frames=3), clips(4, channels=3), "expects C=1 channels, got 3"),
    ]:
        with pytest.raises(ValueError, match=words):
            Trainer(model, strategy, run_dir=tmp_path, steps=1, batch_size=2, device="cpu").fit(TensorClips(data))
    with pytest.raises(ValueError, match="6 frames at least"):
        FrameDoubling(frames=3).attach(doubler())(clips(length=5))


def test_in_phases_the_last_one_says_what_is_seen():
    model, batch = doubler(), clips()
    last = FrameDoubling(frames=3)
    phases = InPhases([(2, FrameDoubling(frames=2)), (None, last)]).attach(model)
    assert torch.equal(phases.seen(batch), last.seen(batch))
    assert InPhases([(2, Colourisation()), (None, Colourisation())]).clip_channels == 3


@pytest.mark.parametrize("kind", ["colour", "doubling", "legacy"])
def test_a_run_that_is_resumed_gives_the_losses_of_the_unbroken_one(kind, tmp_path):
    data = TensorClips(clips(4, channels=3 if kind == "colour" else 1))

    def trainer(folder, steps):
        model = colouriser() if kind == "colour" else FrameDoubler(legacy=True) if kind == "legacy" else doubler()
        strategy = Colourisation() if kind == "colour" else FrameDoubling(frames=3, loss=SSIMLoss())
        return Trainer(
            model,
            strategy,
            run_dir=tmp_path / folder,
            steps=steps,
            batch_size=2,
            schedule="constant",
            device="cpu",
            checkpoint_every=2,
        )

    torch.manual_seed(0)
    whole = trainer("whole", 4)
    whole.fit(data)
    torch.manual_seed(0)
    trainer("parts", 2).fit(data)
    torch.manual_seed(0)
    second = trainer("parts", 4)
    second.fit(data, resume="auto")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name


def test_a_doubler_learns_what_the_blend_does_not_know():
    # A bright bar that moves by two pixels a frame, of which every second one is given.
    torch.manual_seed(0)
    bar = torch.zeros(8, 6, 1, 8, 32)
    for number in range(8):
        for time in range(6):
            left = 3 + number + 2 * time
            bar[number, time, ..., left : left + 5] = 1
    model = FrameDoubler(hidden_channels=(8, 8), patch=2)
    strategy = FrameDoubling(frames=3, last=False).attach(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    blend = nn.functional.mse_loss((bar[:, :4:2] + bar[:, 2:5:2]) / 2, bar[:, 1:4:2])
    for _ in range(40):
        optimizer.zero_grad()
        loss, _ = strategy(bar)
        loss.backward()
        optimizer.step()
    assert loss < 0.3 * blend


@pytest.mark.parametrize("options", [{"frames": 1}, {"frames": 2.5}, {"last": 1}])
def test_impossible_options_are_refused(options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        FrameDoubling(**options)
