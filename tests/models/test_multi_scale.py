# SPDX-License-Identifier: Apache-2.0
"""The wiring of `MultiScalePredictor`, seen by cells that record what they are given and answer what they are told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from pcvideo import MSPN, MultiScalePredictor
from pcvideo.layers import Downsample, FIRDownsample, FIRUpsample
from pcvideo.rollout import flatten_state, rollout


class SpyCell(nn.Module):
    """Writes down its inputs; its image is a fixed random one, its latent is its number, its state counts steps."""

    stride = 1

    def __init__(self, number, image_channels, diary):
        super().__init__()
        self.number, self.image_channels, self.diary = number, image_channels, diary
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def init_state(self, like):
        return like.new_zeros(1)

    def forward(self, inputs, state, latent):
        generator = torch.Generator().manual_seed(100 * self.number + int(state))
        batch, _, height, width = inputs.shape
        shape = (batch, self.image_channels, height, width)
        image = torch.rand(shape, generator=generator, dtype=torch.float64)
        self.diary.append((self.number, inputs, latent, image))
        return self.scale * image, torch.tensor(float(self.number)), state + 1


def spied(levels, *, patch=1, channels=1, **options):
    diary = []
    cells = [SpyCell(level, channels * patch**2, diary) for level in range(levels)]
    return MultiScalePredictor(cells, in_channels=channels, patch=patch, **options), diary


def frame_of(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space_to_depth(image, patch):
    """(B, C, H, W) -> (B, C * patch**2, H / patch, W / patch), (c, i, j) at c * patch**2 + i * patch + j."""
    planes = [
        image[:, c, i::patch, j::patch] for c in range(image.shape[1]) for i in range(patch) for j in range(patch)
    ]
    return np.stack(planes, axis=1)


def depth_to_space(image, patch):
    batch, channels, height, width = image.shape
    out = np.zeros((batch, channels // patch**2, height * patch, width * patch))
    for index in range(channels):
        c, i, j = index // patch**2, index % patch**2 // patch, index % patch
        out[:, c, i::patch, j::patch] = image[:, index]
    return out


def split(target, prediction):
    return np.concatenate([np.maximum(target - prediction, 0), np.maximum(prediction - target, 0)], axis=1)


def doubled(image):
    """Bilinear, corners aligned: along each axis linear between the old samples spread from end to end."""
    for axis in (2, 3):
        size = image.shape[axis]
        places = np.linspace(0, size - 1, 2 * size)
        image = np.apply_along_axis(lambda row, at=places: np.interp(at, np.arange(len(row)), row), axis, image)
    return image


def every_second(image):
    return image[..., ::2, ::2]


def fir_resamplers():
    """Three filters for frames of two channels, no two channels of which have the same cutoff."""
    parts = {
        "downsample": FIRDownsample(2, learnable=False),
        "downsample_errors": FIRDownsample(4),
        "upsample": FIRUpsample(2),
    }
    with torch.no_grad():
        for name, part in parts.items():
            parts[name] = part.double()
            part.cutoff_logit.copy_(torch.linspace(-1, 1, part.channels) + len(name) / 10)
    return parts


def filtered(image, part, factor):
    """(B, C, H, W), its edges repeated, correlated along both axes with each channel's taps."""
    taps = factor * part.make_taps().detach().numpy()
    planes = [
        ndimage.correlate1d(ndimage.correlate1d(image[:, c], row, axis=1, mode="nearest"), row, axis=2, mode="nearest")
        for c, row in enumerate(taps)
    ]
    return np.stack(planes, axis=1)


def fir_doubled(image, part):
    """Edges repeated far enough, zeros between the pixels, filtered, cropped."""
    wide = np.pad(image, [(0, 0), (0, 0), (8, 8), (8, 8)], mode="edge")
    spaced = np.zeros((*wide.shape[:2], 2 * wide.shape[2], 2 * wide.shape[3]))
    spaced[..., ::2, ::2] = wide
    return filtered(spaced, part, 2)[..., 16:-16, 16:-16]


def numpy_resamplers(parts):
    """(halve a frame, halve errors, double a prediction), as the published network or these parts do it."""
    if not parts:
        return every_second, every_second, doubled
    return (
        lambda image: every_second(filtered(image, parts["downsample"], 1)),
        lambda image: every_second(filtered(image, parts["downsample_errors"], 1)),
        lambda image: fir_doubled(image, parts["upsample"]),
    )


@pytest.mark.parametrize(
    ("patch", "residual", "fir"),
    [(1, False, False), (2, False, False), (1, True, False), (2, True, False), (1, False, True), (2, True, True)],
)
def test_every_cell_is_given_what_the_algorithm_says(patch, residual, fir):
    parts = fir_resamplers() if fir else {}
    halve_frame, halve_errors, double = numpy_resamplers(parts)
    model, diary = spied(3, patch=patch, channels=2, residual=residual, **parts)
    frames = [frame_of(seed, 1, 2, 16, 8) for seed in (1, 2)]
    state = model.init_state(frames[0])
    for frame in frames:
        _, state = model.step(frame, state)

    # Section 5 of the algorithm: errors and predictions start at zero; cells go from the coarsest to the finest.
    sizes = [(16 >> level, 8 >> level) for level in range(3)]
    current = [np.zeros((1, 2, *size)) for size in sizes]
    errors = [np.zeros((1, 4, *size)) for size in sizes]
    predictions = [np.zeros((1, 2, *size)) for size in sizes]
    entries = iter(diary)
    for frame in (None, *frames):
        if frame is not None:
            current = [frame.numpy()]
            current += [halve_frame(current[0])]
            current += [halve_frame(current[1])]
            errors = [split(*pair) for pair in zip(current, predictions, strict=True)]
            errors = [np.minimum(8 * error, 1) for error in errors] if residual else errors
        for level in (2, 1, 0):
            number, inputs, latent, image = next(entries)
            expected = [errors[level]]
            expected += [halve_errors(errors[level - 1])] if level > 0 else []
            expected += [double(predictions[level + 1])] if level < 2 else []
            expected += [current[level]] if residual else []
            assert number == level
            assert latent is None if level == 2 else latent.item() == level + 1
            seen = space_to_depth(np.concatenate(expected, axis=1), patch)
            np.testing.assert_allclose(inputs.detach().numpy(), seen, rtol=0, atol=1e-12)
            predictions[level] = depth_to_space(image.numpy(), patch) + (current[level] if residual else 0)
    assert next(entries, None) is None
    for level, prediction in enumerate(predictions):
        np.testing.assert_allclose(state.predictions[level].detach().numpy(), prediction, rtol=0, atol=1e-12)


def test_fed_with_its_own_prediction_the_finest_error_is_zero_and_the_coarser_ones_are_not():
    model, diary = spied(2)
    frame = frame_of(1, 1, 1, 8, 8)
    _, state = model.step(frame, model.init_state(frame))
    diary.clear()
    model.step(None, state)
    (_, coarse, _, _), (_, fine, _, _) = diary
    assert not fine[:, :2].any()
    assert coarse[:, :2].any()


def test_a_frame_predicted_without_any_error_leaves_every_error_zero():
    model, diary = spied(1)
    frame = frame_of(1, 1, 1, 8, 8)
    pyramid, state = model.step(frame, model.init_state(frame))
    diary.clear()
    model.step(pyramid[0], state)
    assert not diary[0][1].any()


def test_a_residual_model_whose_cells_answer_nothing_repeats_the_last_frame():
    model, _ = spied(3, residual=True)
    with torch.no_grad():
        for cell in model.cells:
            cell.scale.zero_()
    frames = frame_of(1, 2, 4, 1, 16, 16)
    assert torch.equal(model(frames, 3), frames[:, -1:].expand(-1, 3, -1, -1, -1))


def test_targets_are_the_frame_halved_as_the_model_halves():
    model, _ = spied(3, downsample=Downsample("average"))
    frame = frame_of(1, 1, 1, 16, 8)
    means = frame.numpy().reshape(1, 1, 4, 4, 2, 4).mean(axis=(3, 5))
    assert [target.shape[-2:] for target in model.targets(frame)] == [(16, 8), (8, 4), (4, 2)]
    np.testing.assert_allclose(model.targets(frame)[2].numpy(), means, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("level", "levels", "expected"), [(0, 1, 2), (0, 4, 3), (1, 4, 5), (2, 4, 5), (3, 4, 4), (1, 2, 4)]
)
def test_level_channels_count_the_errors_and_the_prediction(level, levels, expected):
    for channels in (1, 3):
        assert MultiScalePredictor.level_channels(level, levels, channels) == expected * channels
        assert MultiScalePredictor.level_channels(level, levels, channels, patch=2) == 4 * expected * channels
        with_frame = MultiScalePredictor.level_channels(level, levels, channels, residual=True)
        assert with_frame == (expected + 1) * channels


def test_the_size_that_fits_is_the_least_common_multiple_of_what_the_levels_need():
    model, _ = spied(2)
    model.cells[0].stride, model.cells[1].stride = 3, 2
    assert MultiScalePredictor(list(model.cells), in_channels=1).size_multiple == 12


def test_no_cells_and_cells_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        MultiScalePredictor([], in_channels=1)
    with pytest.raises(ValueError, match=r"cells\[1\] must have image_channels .* = 12, got 3"):
        MultiScalePredictor([SpyCell(0, 12, []), SpyCell(1, 3, [])], in_channels=3, patch=2)


def test_a_model_put_together_from_modules_says_why_it_has_no_config(tmp_path):
    model, _ = spied(1)
    with pytest.raises(TypeError, match=r"'cells' .* subclass it with a constructor that takes numbers"):
        model.save_pretrained(tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_parts_that_mspn_builds_from_numbers_make_the_same_network_by_hand():
    built = MSPN(in_channels=1, levels=2, channels=(3, 4, 5), hidden_channels=2).double().eval()
    by_hand = MultiScalePredictor(list(built.cells), in_channels=1)
    frames = frame_of(1, 1, 3, 1, 8, 8)
    assert torch.equal(by_hand(frames, 2), built(frames, 2))


# Filters between the levels

FIR = {"in_channels": 1, "levels": 3, "channels": (2, 3, 4, 5), "hidden_channels": 2, "resample": "fir"}


def fir_model(**options):
    torch.manual_seed(0)
    return MSPN(**(FIR | options)).double().eval()


def other_cutoffs(model, change=0.5):
    with torch.no_grad():
        for part in (model.downsample_errors, model.upsample):
            part.cutoff_logit.sub_(change)


def summed(pyramids):
    return sum(level.square().sum() for pyramid in pyramids for level in pyramid)


def test_targets_depend_on_no_parameter():
    model, frame = fir_model(), frame_of(1, 1, 1, 16, 16)
    before = model.targets(frame)
    assert not any(target.requires_grad for target in before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-3)
    for one, other in zip(model.targets(frame), before, strict=True):
        assert torch.equal(one, other)


def test_filtered_targets_have_lost_the_stripes_that_every_second_pixel_turns_into_a_plain_colour():
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    stripes[..., ::2] = 1
    nearest, fir = (fir_model(resample=kind).targets(stripes)[1] for kind in ("nearest", "fir"))
    assert (nearest == 1).all()
    # Away from the edges, beyond which the first and last column go on.
    assert (fir[..., 2:-2] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("checkpoint", [False, True])
def test_taps_are_made_once_in_a_rollout_however_long(checkpoint):
    model, frames, calls = fir_model(), frame_of(1, 1, 3, 1, 16, 16), Counter()

    def counting(name, make_taps):
        def make():
            calls[name] += 1
            return make_taps()

        return make

    # Those of frames are fixed.
    assert not list(model.downsample.parameters())
    for name in ("downsample_errors", "upsample"):
        part = getattr(model, name)
        part.make_taps = counting(name, part.make_taps)
    pyramids, state = rollout(model, frames, 4, checkpoint=checkpoint)
    summed(pyramids).backward()
    assert calls == {"downsample_errors": 1, "upsample": 1}
    # A state that is carried on gets them anew, as an optimiser may have stepped in between.
    rollout(model, frames, 4, state=state)
    assert calls == {"downsample_errors": 2, "upsample": 2}


@pytest.mark.parametrize("part", ["downsample_errors", "upsample"])
def test_the_gradient_of_a_cutoff_is_that_of_finite_differences_also_over_a_carried_state(part):
    model, frames, step = fir_model(), frame_of(1, 1, 4, 1, 16, 16), 1e-6
    logit = getattr(model, part).cutoff_logit

    def loss():
        first = rollout(model, frames[:, :2])
        return summed(first.pyramids) + summed(rollout(model, frames[:, 2:], 2, state=first.state).pyramids)

    (slope,) = torch.autograd.grad(loss(), logit)
    values = []
    with torch.no_grad():
        for change in (step, -2 * step):
            logit.add_(change)
            values.append(loss().item())
    assert slope.abs().min() > 0
    assert slope.sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_a_state_carried_over_an_optimiser_step_is_gone_on_with_by_the_new_cutoffs():
    model, frames = fir_model(), frame_of(1, 1, 3, 1, 16, 16)
    first = rollout(model, frames[:, :2])
    other_cutoffs(model)
    carried = rollout(model, frames[:, 2:], state=first.state).pyramids[0]
    fresh = model.init_state(frames[:, 0]).taps
    by_hand, _ = model.step(frames[:, 2], first.state._replace(taps=fresh))
    stale, _ = model.step(frames[:, 2], first.state)
    for level, expected in zip(carried, by_hand, strict=True):
        assert torch.equal(level, expected)
    assert not torch.equal(stale[0], by_hand[0])


def test_a_step_without_taps_in_its_state_makes_them_itself():
    model, frames = fir_model(), frame_of(1, 1, 2, 1, 16, 16)
    _, state = model.step(frames[:, 0], model.init_state(frames[:, 0]))
    with_taps, _ = model.step(frames[:, 1], state)
    without, _ = model.step(frames[:, 1], state._replace(taps=type(state.taps)()))
    for level, expected in zip(without, with_taps, strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-14)


def test_the_state_of_a_model_without_filters_holds_no_taps():
    frame = frame_of(1, 1, 1, 16, 16)
    plain, fir = (set(flatten_state(fir_model(resample=kind).init_state(frame))) for kind in ("binomial", "fir"))
    assert fir - plain == {"state.taps.errors", "state.taps.predictions"}
    assert plain < fir


def test_filters_add_one_cutoff_for_each_channel_of_errors_and_predictions():
    names = fir_model(in_channels=3).state_dict().keys() - fir_model(in_channels=3, resample="nearest").state_dict()
    assert names == {"downsample_errors.cutoff_logit", "upsample.cutoff_logit"}
    model = fir_model(in_channels=3)
    assert [model.downsample_errors.cutoff_logit.numel(), model.upsample.cutoff_logit.numel()] == [6, 3]


def test_with_one_level_there_is_nothing_to_learn_about_resampling():
    one = {"levels": 1, "channels": (2, 3)}
    assert fir_model(**one).state_dict().keys() == fir_model(**one, resample="nearest").state_dict().keys()


def test_one_filter_for_all_channels_serves_frames_and_errors_alike():
    model, diary = spied(2, channels=2, downsample=FIRDownsample(1).double())
    assert [name for name in model.state_dict() if "cutoff" in name] == ["downsample.cutoff_logit"]
    frame = frame_of(1, 1, 2, 16, 8)
    model.step(frame, model.init_state(frame))
    # The finest cell is the second that was asked for an anticipation, the coarse one the third.
    error, taps = split(frame.numpy(), diary[1][3].numpy()), model.downsample.make_taps()[0].detach().numpy()
    rows = ndimage.correlate1d(error, taps, axis=2, mode="nearest")
    halved = every_second(ndimage.correlate1d(rows, taps, axis=3, mode="nearest"))
    np.testing.assert_allclose(diary[2][1].detach().numpy()[:, 4:8], halved, rtol=0, atol=1e-12)
