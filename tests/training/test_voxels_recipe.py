# SPDX-License-Identifier: Apache-2.0
"""The recipe of `convlstm-voxels` in `examples/training`: places alone are what the whole network computes there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pcvideo.models import ConvLSTMPredictor, next_frames

SCRIPT = Path(__file__).parents[2] / "examples" / "training" / "voxels.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("voxels_recipe", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(recipe: ModuleType, side: int, features: int, hidden: int, history: int) -> ConvLSTMPredictor:
    torch.manual_seed(side)
    sizes = {"encoder_kernel_size": side, "encoder_channels": features, "hidden_channels": (hidden,)}
    return ConvLSTMPredictor(**recipe.MODEL, **sizes, history=history).double().eval()


@pytest.mark.parametrize("side", [3, 5])
def test_logits_at_places_are_those_of_the_whole_network(recipe: ModuleType, side: int) -> None:
    model = network(recipe, side, 6, 5, 3)
    frames = (torch.rand(1, 5, 1, 8, 8, 8) > 0.6).double()
    strategy = recipe.Places(frames=5, places=1).attach(model)
    # All 64 places, each with what the encoder sees of it.
    margin = side // 2 * 2
    padded = torch.nn.functional.pad(frames[0, :, 0], (margin,) * 6)
    around = padded.unfold(1, 2 * side, 2).unfold(2, 2 * side, 2).unfold(3, 2 * side, 2).flatten(1, 3)
    found = torch.sigmoid(strategy._at_places(around[:-1]))
    # (T, place, voxel in it)
    whole = next_frames(model, frames)[0, :, 0].unfold(1, 2, 2).unfold(2, 2, 2).unfold(3, 2, 2)
    assert (found - whole.flatten(1, 3).flatten(2)).abs().max() < 1e-12


def test_drawn_places_have_the_mean_of_all(recipe: ModuleType) -> None:
    torch.manual_seed(0)
    strategy = recipe.Places(frames=3, places=300)
    clips = (torch.rand(4, 3, 8, 8, 8) > 0.97).float()
    values = torch.rand(4 * 64)
    means = []
    for _ in range(200):
        chosen, weights = strategy._draw(clips)
        means.append((values[chosen] * weights).mean().item())
    assert sum(means) / len(means) == pytest.approx(values.mean().item(), rel=0.02)


def test_a_large_network_begins_as_the_small_one_within_it(recipe: ModuleType) -> None:
    small, large = network(recipe, 3, 6, 5, 2), network(recipe, 5, 8, 7, 4)
    frames = (torch.rand(2, 6, 1, 8, 8, 8) > 0.6).double()
    recipe.begin_as(large, small)
    with torch.no_grad():
        assert (large(frames, 3) - small(frames, 3)).abs().max() < 1e-12
    # What is new learns: its weights get gradients.
    large(frames, 3).sum().backward()
    assert large.head.weight.grad[:, 5:].abs().max() > 0
