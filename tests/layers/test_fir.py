# SPDX-License-Identifier: Apache-2.0
"""Filters with a learnable cutoff against their formulas in numpy, and the published one against its transcription."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pcvideo.layers import FIRDownsample, FIRUpsample, LearnableFIR

FORMS = [LearnableFIR, FIRDownsample, FIRUpsample]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# sigmoid(2), where the published cutoff starts.
PUBLISHED_START = 0.8807970780


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_logits(module: LearnableFIR, *logits: float) -> LearnableFIR:
    with torch.no_grad():
        module.cutoff_logit.copy_(torch.tensor(logits))
    return module


@pytest.mark.parametrize(
    ("module", "start"),
    [
        (LearnableFIR(3), 0.9),
        (LearnableFIR(3, max_cutoff=0.6), 0.54),
        (FIRDownsample(3), 0.45),
        (FIRDownsample(3, factor=4), 0.225),
        (FIRDownsample(3, max_cutoff=1.0), 0.9),
        (FIRUpsample(3), 0.45),
        (FIRUpsample(3, factor=3), 0.3),
        (FIRDownsample(3, learnable=False), 0.45),
        (FIRDownsample(3, bound="published"), PUBLISHED_START),
    ],
)
def test_a_fresh_cutoff_is_nine_tenths_of_the_largest_one_or_as_published(module, start):
    np.testing.assert_allclose(module.cutoff.detach().numpy(), [start] * 3, rtol=1e-6)


def test_the_cutoff_is_the_largest_one_times_a_sigmoid():
    module = with_logits(FIRDownsample(4).double(), -3, 0, 2, 30)
    expected = [0.5 / (1 + math.exp(3)), 0.25, 0.5 / (1 + math.exp(-2)), 0.5]
    np.testing.assert_allclose(module.cutoff.detach().numpy(), expected, rtol=1e-12)


def test_the_published_cutoff_hardly_falls_below_the_new_nyquist_frequency():
    module = with_logits(FIRDownsample(4, bound="published").double(), -5, -1, 0, 2)
    # sigmoid(LeakyReLU(q)) with the slope 0.01 below zero.
    expected = [1 / (1 + math.exp(0.05)), 1 / (1 + math.exp(0.01)), 0.5, PUBLISHED_START]
    np.testing.assert_allclose(module.cutoff.detach().numpy(), expected, rtol=1e-9)
    assert module.cutoff.min() > 0.487


def sinc_taps(cutoff: float, taps: int) -> np.ndarray:
    offsets = np.arange(taps) - taps // 2
    weights = cutoff * np.sinc(cutoff * offsets) * np.kaiser(taps, 4.0)
    return weights / weights.sum()


@pytest.mark.parametrize(("border", "mode"), [("replicate", "edge"), ("reflect", "reflect"), ("zeros", "constant")])
def test_each_channel_is_filtered_by_the_kaiser_windowed_sinc_of_its_own_cutoff(border, mode):
    module = with_logits(LearnableFIR(2, 7, border=border).double(), -1.0, 1.0)
    image = draw(1, 2, 9, 8)
    for channel, logit in enumerate((-1.0, 1.0)):
        taps = sinc_taps(1 / (1 + math.exp(-logit)), 7)
        padded = np.pad(image[0, channel].numpy(), 3, mode=mode)
        expected = sum(
            taps[row] * taps[column] * padded[row : row + 9, column : column + 8] for row, column in np.ndindex(7, 7)
        )
        np.testing.assert_allclose(module(image)[0, channel].detach().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 3)])
@pytest.mark.parametrize("design", ["separable", "radial", "reshaped"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_factor_divides_or_multiplies_the_size_and_odd_ones_round_up(size, design, factor):
    image = torch.zeros(2, 3, *size)
    down = FIRDownsample(3, factor=factor, design=design)(image)
    up = FIRUpsample(3, factor=factor, design=design)(image)
    assert down.shape == (2, 3, *(math.ceil(side / factor) for side in size))
    assert up.shape == (2, 3, *(side * factor for side in size))
    assert LearnableFIR(3, design=design)(image).shape == image.shape


@pytest.mark.parametrize("border", ["replicate", "reflect", "zeros"])
def test_decimation_keeps_every_second_sample_of_the_filtered_image_from_the_first(border):
    whole = LearnableFIR(2, max_cutoff=0.5, border=border)
    half = FIRDownsample(2, border=border)
    image = draw(1, 2, 9, 10).float()
    torch.testing.assert_close(half(image), whole(image)[:, :, ::2, ::2])


@pytest.mark.parametrize("design", ["separable", "radial"])
def test_a_plain_image_keeps_its_brightness(design):
    plain = torch.full((1, 2, 8, 7), 0.5, dtype=torch.float64)
    for module in (
        LearnableFIR(2, design=design),
        FIRDownsample(2, design=design),
        FIRUpsample(2, design=design),
        FIRUpsample(2, 7, factor=3, design=design),
        FIRUpsample(2, design=design, learnable=False),
    ):
        np.testing.assert_allclose(module.double()(plain).detach().numpy(), 0.5, rtol=1e-6)


def test_doubling_brings_a_slow_wave_back_between_its_samples():
    places = torch.arange(40, dtype=torch.float64)
    slow = torch.cos(math.pi * 0.2 * places / 2)
    doubled = FIRUpsample(1, 25).double()(slow[::2].expand(1, 1, 20, 20))[0, 0, 20].detach()
    np.testing.assert_allclose(doubled[13:-13].numpy(), slow[13:-13].numpy(), atol=0.01)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("design", ["separable", "radial", "reshaped"])
def test_taps_made_once_give_the_same_images_and_gradients(form, design):
    module, image = form(2, design=design).double(), draw(2, 2, 6, 5)

    def outcome(taps: torch.Tensor | None) -> list[torch.Tensor]:
        filtered = torch.stack([module(frame, taps) for frame in (image, image + 1)])
        return [filtered, *torch.autograd.grad(filtered.square().sum(), [module.cutoff_logit])]

    for hoisted, plain in zip(outcome(module.make_taps()), outcome(None), strict=True):
        torch.testing.assert_close(hoisted, plain)
    assert not torch.equal(module(image, torch.zeros_like(module.make_taps())), module(image))


@pytest.mark.parametrize("bound", ["max_cutoff", "published"])
@pytest.mark.parametrize("design", ["separable", "radial", "reshaped"])
def test_the_gradient_of_the_cutoff_is_that_of_finite_differences(design, bound):
    module, image = FIRDownsample(2, 5, design=design, bound=bound).double(), draw(1, 2, 5, 4)

    def run(logit: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"cutoff_logit": logit}, (image,))

    logit = torch.tensor([0.7, -0.4], dtype=torch.float64)
    assert torch.autograd.gradcheck(run, (logit.requires_grad_(), image.requires_grad_()))
    assert torch.autograd.gradgradcheck(run, (logit, image))


@pytest.mark.parametrize("design", ["separable", "radial"])
def test_a_few_steps_of_descent_find_the_cutoff_that_made_the_target(design):
    image, sought = draw(1, 2, 16, 16), [0.25, 0.35]
    maker = FIRDownsample(2, design=design).double()
    target = with_logits(maker, *(math.log(cutoff / (0.5 - cutoff)) for cutoff in sought))(image).detach()
    learner = FIRDownsample(2, design=design).double()
    optimizer = torch.optim.SGD(learner.parameters(), lr=40.0)
    distances = []
    for _ in range(60):
        distances.append((learner.cutoff.detach() - torch.tensor(sought)).abs().max().item())
        optimizer.zero_grad()
        F.mse_loss(learner(image), target).backward()
        optimizer.step()
    assert distances[0] == pytest.approx(0.2, abs=1e-6)
    assert all(after < before or after < 1e-6 for before, after in itertools.pairwise(distances))
    assert distances[-1] < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_a_fixed_cutoff_has_no_parameters_and_saves_nothing(form):
    fixed, learnt = form(3, learnable=False), form(3)
    assert list(fixed.parameters()) == []
    assert fixed.state_dict() == {}
    assert [name for name, _ in learnt.named_parameters()] == ["cutoff_logit"]
    image = draw(1, 3, 6, 6).float()
    torch.testing.assert_close(fixed(image), learnt(image))
    # It follows its module to another dtype all the same.
    assert fixed.double().make_taps().dtype == torch.float64


def test_a_fixed_filter_that_was_used_for_inference_trains_what_comes_before_it_and_exports():
    fixed, image = FIRDownsample(2, learnable=False), draw(1, 2, 6, 6).float()
    with torch.inference_mode():
        expected = fixed(image)
    leaf = image.clone().requires_grad_()
    fixed(leaf).sum().backward()
    # Taps sum to one, and repeated edges are met more often: all in all, each output is a mean.
    assert leaf.grad.sum().item() == pytest.approx(2 * 3 * 3, rel=1e-5)
    exported = torch.export.export(FIRDownsample(2, learnable=False), (image,)).module()
    torch.testing.assert_close(exported(image), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
def test_images_of_any_float_dtype_keep_it_whatever_the_weights_have(form, dtype):
    image = draw(1, 2, 6, 5).to(dtype)
    exact = form(2).double()(image.double())
    for weights in FLOATS:
        module = form(2).to(weights)
        assert module.make_taps().dtype == weights
        filtered = module(image)
        assert filtered.dtype == dtype
        loose = max(torch.finfo(dtype).eps, torch.finfo(weights).eps, 2e-7)
        torch.testing.assert_close(filtered.double(), exact, rtol=0, atol=4 * loose * exact.abs().max().item())


@pytest.mark.parametrize("logit", [2.0, -1.0])
def test_the_legacy_filter_is_the_transcription_of_the_published_one(logit):
    module = with_logits(FIRDownsample(3, design="reshaped", bound="published").double(), logit, logit, logit)
    cutoff = 1 / (1 + math.exp(-(logit if logit > 0 else 0.01 * logit)))
    steps = torch.arange(25, dtype=torch.float64)
    window = 0.54 - 0.46 * torch.cos(2 * math.pi * steps / 24)
    kernel = cutoff * torch.sinc(cutoff * (steps - 12)) * window
    kernel = (kernel / kernel.sum()).reshape(1, 1, 5, 5).repeat(3, 1, 1, 1)
    for size in ((8, 10), (7, 9), (1, 2)):
        image = draw(2, 3, *size)
        expected = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), kernel, stride=2, groups=3)
        torch.testing.assert_close(module(image), expected, rtol=0, atol=1e-12)


def test_its_words_are_what_it_does():
    assert str(FIRDownsample(3)) == (
        "FIRDownsample(3, taps=9, design='separable', window='kaiser', beta=4, max_cutoff=0.5, learnable=True, "
        "border='replicate')"
    )
    legacy = FIRDownsample(3, design="reshaped", bound="published")
    assert legacy.taps == 5
    assert str(legacy) == (
        "FIRDownsample(3, taps=5, design='reshaped', bound='published', learnable=True, border='replicate')"
    )


@pytest.mark.parametrize(
    ("form", "arguments", "error", "words"),
    [
        (LearnableFIR, {"channels": 0}, ValueError, "channels must be a whole number of at least 1, got 0"),
        (LearnableFIR, {"channels": 3.0}, TypeError, "channels must be"),
        (LearnableFIR, {"channels": 3, "taps": 8}, ValueError, "taps must be odd.*take 9"),
        (LearnableFIR, {"channels": 3, "taps": 1}, ValueError, "taps must be .*at least 3"),
        (LearnableFIR, {"channels": 3, "design": "radail"}, ValueError, "did you mean 'radial'"),
        (LearnableFIR, {"channels": 3, "window": "hann"}, ValueError, "window must be one of 'kaiser', 'hamming'"),
        (LearnableFIR, {"channels": 3, "beta": -1}, ValueError, "beta must be"),
        (LearnableFIR, {"channels": 3, "max_cutoff": 1.5}, ValueError, r"max_cutoff must be .* got 1.5"),
        (LearnableFIR, {"channels": 3, "max_cutoff": 0}, ValueError, "max_cutoff must be"),
        (LearnableFIR, {"channels": 3, "bound": "publishd"}, ValueError, "did you mean 'published'"),
        (LearnableFIR, {"channels": 3, "learnable": 1}, TypeError, "learnable must be True or False"),
        (LearnableFIR, {"channels": 3, "border": "valid"}, ValueError, "border must be one of"),
        (FIRDownsample, {"channels": 3, "factor": 0}, ValueError, "factor must be"),
        (FIRUpsample, {"channels": 3, "factor": 2.0}, TypeError, "factor must be a whole number"),
        (FIRUpsample, {"channels": 3, "factor": 0, "max_cutoff": 0.5}, ValueError, "factor must be"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(form, arguments, error, words):
    with pytest.raises(error, match=words):
        form(**arguments)


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="each of the 4 channels, or one for all, got 3"):
        FIRDownsample(3)(torch.zeros(1, 4, 8, 8))
