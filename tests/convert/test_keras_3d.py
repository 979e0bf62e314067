# SPDX-License-Identifier: Apache-2.0
"""Keras' ConvLSTM3D: the golden numbers after conversion, the published files, and broken ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import original_checkpoints as published
import pytest
import torch
from golden import golden_input

import pcvideo
from pcvideo._files import WeightsCorruptError
from pcvideo.cli.main import main
from pcvideo.convert import load_original, read_original, to_original
from pcvideo.rollout import rollout

h5py = pytest.importorskip("h5py", reason="h5py is missing: pip install 'pcvideo[convert]'")

SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "voxel4d"
LAYERS = ((1, 5), (32, 3), (32, 1))


def keras_arrays(*, scale=1.0, fill=published.golden, features=32, first=0):
    """By Keras' names and layouts; each tensor filled in torch's layout, gates in Keras' order."""
    arrays = {}

    def kernel(name, shape):
        arrays[name] = (scale * fill(shape)).permute(2, 3, 4, 1, 0).numpy()

    for index, (wide, side) in enumerate(LAYERS):
        channels = min(wide, features)
        number = index + first
        layer = f"conv_lstm3d_{number}" if number else "conv_lstm3d"
        kernel(f"{layer}/kernel", (4 * features, channels, side, side, side))
        kernel(f"{layer}/recurrent_kernel", (4 * features, features, side, side, side))
        arrays[f"{layer}/bias"] = fill((4 * features,)).numpy()
    for index in range(2):
        number = index + first
        layer = f"batch_normalization_{number}" if number else "batch_normalization"
        at_first = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
        arrays |= {f"{layer}/{name}": np.full(features, value) for name, value in at_first.items()}
    kernel("conv3d/kernel", (1, features, 5, 5, 5))
    arrays["conv3d/bias"] = fill((1,)).numpy()
    return arrays


def write(path, arrays, group="model_weights/"):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, weight = name.split("/")
            file[f"{group}{layer}/{layer}/{weight}:0"] = array
    return path


def predictions(model, volumes):
    with torch.no_grad():
        return torch.stack([pyramid[0] for pyramid in rollout(model, volumes).pyramids], 1)


# Golden numbers: made once with Keras; the second ones tell swapped gates and a missing recurrence.


@pytest.mark.slow
def test_converted_weights_give_the_golden_volumes(tmp_path):
    path = write(tmp_path / "a.h5", keras_arrays(scale=8.0))
    assert main(["convert", str(path), str(tmp_path / "mine")]) == 0
    model = pcvideo.from_pretrained(tmp_path / "mine", dtype=torch.float64)
    assert sum(tensor.numel() for name, tensor in model.state_dict().items() if "tracked" not in name) == 762_017
    # With one channel, the axes have the same order in both layouts.
    future = predictions(model, golden_input(1, 3, 1, 16, 16, 16))
    flat = future.flatten()
    found = (flat.mean().item(), flat.std(unbiased=False).item(), flat[0].item(), flat[-1].item())
    assert found == pytest.approx((0.5111524408, 0.0046855065, 0.5101326808, 0.5138738365), rel=1e-6)


def test_layers_are_taken_in_the_order_of_their_numbers(tmp_path):
    plain = keras_arrays(fill=published.Drawn(), features=3)
    later = keras_arrays(fill=published.Drawn(), features=3, first=9)
    volumes = golden_input(1, 2, 1, 6, 6, 6)
    one, other = (
        predictions(load_original(write(tmp_path / f"{index}.h5", arrays), dtype=torch.float64), volumes)
        for index, arrays in enumerate((plain, later))
    )
    assert torch.equal(one, other)


def test_a_model_goes_back_to_the_arrays_of_keras(tmp_path):
    arrays = keras_arrays(fill=published.Drawn(), features=3)
    for group in ("model_weights/", ""):
        original = read_original(write(tmp_path / "a.h5", arrays, group))
        assert original.dropped == ()
        back = to_original(original.model)
        assert back.keys() == arrays.keys()
        assert all(np.array_equal(tensor.numpy(), arrays[name]) for name, tensor in back.items())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared voxel scenes are not here (PCVIDEO_SHARED_DATA)")
def test_the_published_weights_beat_copying_on_scenes_that_they_never_saw():
    packed = np.load(SHARED / "test_400_packed.npz")["packed"][:2]
    scenes = np.unpackbits(packed, axis=1).reshape(-1, 128, 16, 16, 16)[:, 24:104:4]
    volumes = torch.from_numpy(scenes).float()[:, :8, None]
    model = load_original(SHARED / "reference_weights" / "convlstm3d_16_T80_TINC4.h5")
    predicted, truth, before = (
        predictions(model, volumes[:, :-1])[:, 2:] > 0.5,
        volumes[:, 3:] > 0.5,
        volumes[:, 2:-1] > 0.5,
    )

    def jaccard(found):
        return 1 - (found & truth).sum().item() / (found | truth).sum().item()

    assert jaccard(predicted) < jaccard(before)


# Faults


def test_missing_and_unexpected_arrays_are_named_as_in_the_file(tmp_path):
    arrays = keras_arrays(features=3)
    del arrays["conv_lstm3d_1/recurrent_kernel"]
    arrays["dense/kernel"] = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"missing: conv_lstm3d_1/recurrent_kernel\. unexpected: dense/kernel"):
        read_original(write(tmp_path / "a.h5", arrays))
    del arrays["conv3d/kernel"]
    with pytest.raises(ValueError, match="conv3d/kernel is missing, by whose shape"):
        read_original(write(tmp_path / "a.h5", arrays))


def test_a_file_that_is_cut_empty_or_points_elsewhere_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", keras_arrays(features=3))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(WeightsCorruptError, match="no HDF5 file as Keras 2"):
        read_original(path)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.10.0"
    with pytest.raises(WeightsCorruptError, match="holds no weights of layers"):
        read_original(path)
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        file.create_dataset("conv3d/conv3d/bias:0", (8,), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
    with pytest.raises(WeightsCorruptError, match="lies in another file"):
        read_original(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("conv3d/conv3d/kernel:0", (10**6, 10**6), "f4", chunks=(10, 10))
    with pytest.raises(WeightsCorruptError, match="claims more than this one has"):
        read_original(path)
