# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from pcvideo.layers import from_patches, to_patches


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_of_images_it_is_torchs_own(patch: int) -> None:
    frames = torch.rand(2, 3, 6, 12)
    patches = to_patches(frames, patch)
    assert torch.equal(patches, torch.nn.functional.pixel_unshuffle(frames, patch))
    assert torch.equal(from_patches(patches, patch), torch.nn.functional.pixel_shuffle(patches, patch))


def test_of_volumes_each_channel_is_one_place_of_every_patch() -> None:
    volumes = torch.rand(2, 3, 4, 6, 8)
    patches = to_patches(volumes, 2)
    assert patches.shape == (2, 24, 2, 3, 4)
    for channel, (c, z, y, x) in enumerate(np.ndindex(3, 2, 2, 2)):
        assert torch.equal(patches[:, channel], volumes[:, c, z::2, y::2, x::2])
    assert torch.equal(from_patches(patches, 2), volumes)


def test_sides_and_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by patch=2"):
        to_patches(torch.zeros(1, 1, 4, 5, 4), 2)
    with pytest.raises(ValueError, match=r"divisible by 2\*\*3"):
        from_patches(torch.zeros(1, 4, 2, 2, 2), 2)
    with pytest.raises(ValueError, match="patch"):
        to_patches(torch.zeros(1, 1, 4, 4), 0)
