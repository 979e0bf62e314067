# SPDX-License-Identifier: Apache-2.0
"""The wiring of `MultiScalePredictor`, seen by cells that record what they are given and answer what they are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pcvideo import MSPN, MultiScalePredictor
from pcvideo.layers import Downsample


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


@pytest.mark.parametrize(("patch", "residual"), [(1, False), (2, False), (1, True), (2, True)])
def test_every_cell_is_given_what_the_algorithm_says(patch, residual):
    model, diary = spied(3, patch=patch, channels=2, residual=residual)
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
            current = [frame.numpy()[..., :: 2**level, :: 2**level] for level in range(3)]
            errors = [split(*pair) for pair in zip(current, predictions, strict=True)]
            errors = [np.minimum(8 * error, 1) for error in errors] if residual else errors
        for level in (2, 1, 0):
            number, inputs, latent, image = next(entries)
            expected = [errors[level]]
            expected += [errors[level - 1][..., ::2, ::2]] if level > 0 else []
            expected += [doubled(predictions[level + 1])] if level < 2 else []
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
