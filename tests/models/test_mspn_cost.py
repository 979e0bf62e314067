# SPDX-License-Identifier: Apache-2.0
"""What the Moving MNIST network costs: a step, counted without computing it, and the memory to train it in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pcvideo import MSPN

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


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


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is read from Linux's /proc")
@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks come with a source checkout alone")
def test_training_with_recomputed_activations_takes_at_most_0_3_of_a_plain_transcriptions_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Beyond weights, gradients and optimizer; 20 frames of 64x64 at batch 1, the published numbers.
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import bench_mspn
    from _measure import peak_memory

    plain = peak_memory(bench_mspn._train_plain, bench_mspn.PUBLISHED)
    ours = peak_memory(bench_mspn._train_ours, bench_mspn.PUBLISHED, True)
    # Less would not be the twenty steps' activations.
    assert plain > 800
    assert ours <= 0.3 * plain
