# SPDX-License-Identifier: Apache-2.0
"""What a step of the Moving MNIST network costs, counted without computing it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pcvideo import MSPN


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (1, 8.12),  # counted on the published code
        (4, 0.54),  # the README's figure
    ],
)
def test_a_step_takes_as_many_multiplications_as_is_said(patch: int, expected: float) -> None:
    with torch.device("meta"):
        model = MSPN(in_channels=1, levels=3, channels=(64, 128, 256, 512), hidden_channels=32, patch=patch)
        frame = torch.empty(1, 1, 64, 64)
    state = model.init_state(frame)
    with FlopCounterMode(display=False) as counter:
        model.step(frame, state)
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=0.005)
