# SPDX-License-Identifier: Apache-2.0
"""Keras' ConvLSTM3D against its equations, and the published weights on the scenes they were made for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pcvideo.convert import conv_lstm_from_keras, read_keras_weights
from pcvideo.data import VoxelScenes
from pcvideo.layers import use_fourier
from pcvideo.metrics import jaccard_distance
from pcvideo.models import next_frames

SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", "/nowhere")) / "voxel4d"


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


def arrays(hidden: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv_lstm3d/kernel": rng.normal(size=(1, 1, 1, 1, 4 * hidden)),
        "conv_lstm3d/recurrent_kernel": rng.normal(size=(1, 1, 1, hidden, 4 * hidden)),
        "conv_lstm3d/bias": rng.normal(size=4 * hidden),
        "conv3d/kernel": rng.normal(size=(1, 1, 1, hidden, 1)),
        "conv3d/bias": rng.normal(size=1),
    }


def test_a_converted_cell_is_keras_equations_written_out_voxel_by_voxel() -> None:
    keras, hidden = arrays(), 3
    model = conv_lstm_from_keras(keras)
    frames = np.random.default_rng(1).random((1, 4, 1, 2, 2, 2))
    found = next_frames(model, torch.from_numpy(frames)).numpy()
    kernel, recurrent = (
        keras[f"conv_lstm3d/{name}"].reshape(-1, 4 * hidden) for name in ("kernel", "recurrent_kernel")
    )
    for place in np.ndindex(2, 2, 2):
        h = c = np.zeros(hidden)
        for time in range(3):
            x = frames[(0, time, slice(None), *place)]
            i, f, g, o = np.split(x @ kernel + keras["conv_lstm3d/bias"] + h @ recurrent, 4)
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * np.maximum(g, 0)
            h = hard_sigmoid(o) * np.maximum(c, 0)
            logit = h @ keras["conv3d/kernel"].reshape(hidden, 1) + keras["conv3d/bias"]
            assert found[(0, time, 0, *place)] == pytest.approx(1 / (1 + np.exp(-logit[0])), rel=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published weights and scenes: PCVIDEO_SHARED_DATA")
def test_the_published_weights_are_ahead_of_copying_by_as_much_as_over_the_whole_test_set() -> None:
    pytest.importorskip("h5py")
    model = conv_lstm_from_keras(read_keras_weights(SHARED / "reference_weights" / "convlstm3d_16_T80_TINC4.h5"))
    assert model.config["hidden_channels"] == (32, 32, 32)
    scenes = VoxelScenes(SHARED / "test_400_packed.npz", format="80/4")
    clips = torch.stack([scenes[index] for index in range(16)])
    # 0.1975 against 0.3547 over all 400 scenes; scenes differ in how hard they are, less in this ratio.
    predicted = jaccard_distance(next_frames(use_fourier(model), clips), clips[:, 1:]).mean()
    copied = jaccard_distance(clips[:, :-1], clips[:, 1:]).mean()
    assert float(predicted / copied) == pytest.approx(0.1975 / 0.3547, abs=0.02)
