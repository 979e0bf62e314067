# SPDX-License-Identifier: Apache-2.0
"""AEncGAN3D's two Keras files, built by the published layer tables, against these tables written out by hand."""

from __future__ import annotations

import numpy as np
import original_checkpoints as published
import pytest
import torch
from golden import golden_input
from torch.nn import functional as F

import pcvideo
from pcvideo.cli.main import main
from pcvideo.convert import aenc_gan_from_keras, read_original, to_original

CODES = 5


class Keras:
    """Names and arrays as Keras numbers and keeps them; volumes have their channels last."""

    def __init__(self, fill, first=0):
        self.fill, self.counts, self.arrays, self.first = fill, {}, {}, first

    def _name(self, kind):
        number = self.counts[kind] = self.counts.get(kind, self.first - 1) + 1
        return f"{kind}_{number}" if number else kind

    def conv(self, inputs, outputs, side=5, kind="conv3d"):
        name = self._name(kind)
        # Keras: (depth, height, width, in, out), and for transposed ones (..., out, in).
        last = (outputs, inputs) if kind == "conv3d" else (inputs, outputs)
        self.arrays[f"{name}/kernel"] = self.fill((*last, side, side, side)).permute(2, 3, 4, 1, 0).numpy()
        self.arrays[f"{name}/bias"] = self.fill((outputs,)).numpy()
        return name

    def transposed(self, inputs, outputs):
        return self.conv(inputs, outputs, kind="conv3d_transpose")

    def norm(self, channels):
        name = self._name("batch_normalization")
        drawn = published.batch_norm("n", channels, self.fill)
        for ours, theirs in (("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean")):
            self.arrays[f"{name}/{theirs}"] = drawn[f"n.{ours}"].numpy()
        self.arrays[f"{name}/moving_variance"] = drawn["n.running_var"].numpy()
        return name

    def dense(self, inputs, outputs):
        name = self._name("dense")
        self.arrays[f"{name}/kernel"] = self.fill((outputs, inputs)).t().numpy()
        self.arrays[f"{name}/bias"] = self.fill((outputs,)).numpy()
        return name

    def parameters(self):
        return sum(array.size for array in self.arrays.values())


def encoder(keras, architecture, width, codes, size=16):
    """Makes the layers in the published order; gives the network as a function of volumes (B, D, H, W, 1)."""
    eighth, quarter, half = width // 8, width // 4, width // 2
    if architecture == "preres":
        stem = keras.conv(1, eighth)
        # In each block the shortcut comes first.
        blocks = [
            (keras.conv(i, o, 1), keras.norm(i), keras.conv(i, o), stride)
            for i, o, stride in ((eighth, quarter, 2), (quarter, half, 2), (half, width, 1))
        ]
        last = keras.norm(width)
    else:
        plain = [(keras.conv(1, quarter), keras.norm(quarter)), (keras.conv(quarter, half), keras.norm(half))]
        stem = keras.conv(half, width)
    dense = keras.dense(width * (size // 4) ** 3, codes)

    def network(x):
        a = keras.arrays
        if architecture == "classic":
            for conv, norm in plain:
                x = leaky(normalised(a, norm, convolved(a, conv, x, 2)))
            x = convolved(a, stem, x)
        else:
            x = convolved(a, stem, x)
            for shortcut, norm, conv, stride in blocks:
                beside = x if stride == 1 else halved(x)
                x = convolved(a, shortcut, beside) + convolved(a, conv, leaky(normalised(a, norm, x)), stride)
            x = leaky(normalised(a, last, x))
        return x.flatten(1) @ array(a, dense, "kernel") + array(a, dense, "bias")

    return network


def generator(keras, architecture, width, codes):
    """As `encoder`: a function of codes (B, codes)."""
    eighth, quarter, half = width // 8, width // 4, width // 2
    dense = keras.dense(codes, 64 * width)
    if architecture == "preres":
        blocks = [
            (keras.conv(i, o, 1), keras.norm(i), keras.transposed(i, o), up)
            for i, o, up in ((width, half, 1), (half, quarter, 2), (quarter, eighth, 2))
        ]
        last, head = keras.norm(eighth), keras.transposed(eighth, 1)
    else:
        first = keras.norm(width)
        plain = [
            (up, keras.transposed(i, o), keras.norm(o))
            for up, i, o in ((1, width, width), (2, width, half), (2, half, quarter))
        ]
        head = keras.transposed(quarter, 1)

    def network(codes):
        a = keras.arrays
        x = (codes @ array(a, dense, "kernel") + array(a, dense, "bias")).view(-1, 4, 4, 4, width)
        if architecture == "classic":
            x = normalised(a, first, x).relu()
            for up, conv, norm in plain:
                x = normalised(a, norm, transposed(a, conv, doubled(x, up))).relu()
        else:
            for shortcut, norm, conv, up in blocks:
                main = doubled(normalised(a, norm, x).relu(), up)
                x = convolved(a, shortcut, doubled(x, up)) + transposed(a, conv, main)
            x = normalised(a, last, x).relu()
        return torch.sigmoid(transposed(a, head, x))

    return network


def array(arrays, name, weight):
    return torch.from_numpy(arrays[f"{name}/{weight}"])


def leaky(x):
    return torch.where(x > 0, x, 0.3 * x)


def normalised(arrays, name, x):
    gamma, beta, mean, variance = (
        array(arrays, name, weight) for weight in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return gamma * (x - mean) / torch.sqrt(variance + 1e-3) + beta


def convolved(arrays, name, x, stride=1):
    kernel = array(arrays, name, "kernel")
    # Keras' "same": two voxels on both sides, or one before and two after where the stride is 2.
    pad = {(5, 1): (2, 2), (5, 2): (1, 2), (1, 1): (0, 0)}[kernel.shape[0], stride]
    x = F.pad(x.movedim(-1, 1), pad * 3)
    return F.conv3d(x, kernel.permute(4, 3, 0, 1, 2), array(arrays, name, "bias"), stride).movedim(1, -1)


def transposed(arrays, name, x):
    """Each voxel spreads its kernel over its neighbours: the sum written out over the kernel's places."""
    kernel, (depth, height, width) = array(arrays, name, "kernel"), x.shape[1:4]
    total = torch.zeros(len(x), depth + 4, height + 4, width + 4, kernel.shape[3], dtype=x.dtype)
    for d, h, w in np.ndindex(5, 5, 5):
        total[:, d : d + depth, h : h + height, w : w + width] += x @ kernel[d, h, w].t()
    return total[:, 2:-2, 2:-2, 2:-2] + array(arrays, name, "bias")


def halved(x):
    batch, depth, height, width, channels = x.shape
    return x.view(batch, depth // 2, 2, height // 2, 2, width // 2, 2, channels).mean((2, 4, 6))


def doubled(x, times):
    for axis in (1, 2, 3):
        x = x.repeat_interleave(times, axis)
    return x


def both(architecture, *, context=1, fill=None, first=0, width=8, codes=CODES):
    """The session that made the encoder went on to the generator, and went on counting."""
    one = Keras(fill or published.Drawn(), first)
    encode = encoder(one, architecture, width, codes)
    other = Keras(one.fill, first)
    other.counts = dict(one.counts)
    return one, encode, other, generator(other, architecture, width, codes * context)


@pytest.mark.parametrize("architecture", ["preres", "classic"])
@pytest.mark.parametrize("context", [1, 3])
def test_converted_networks_are_the_published_ones_written_out(architecture, context):
    one, encode, other, generate = both(architecture, context=context, first=7)
    model = aenc_gan_from_keras(one.arrays, other.arrays)
    assert model.config["architecture"] == architecture
    assert (model.config["context"], model.config["width"], model.config["size"]) == (context, 8, (16, 16, 16))
    volumes = golden_input(2, context, 1, 16, 16, 16)
    # One channel: the axes have the same order in both layouts. Oldest volume first.
    expected = generate(torch.cat([encode(volumes[:, time].movedim(1, -1)) for time in range(context)], 1))
    with torch.no_grad():
        found = model(volumes, 1)[:, 0]
    assert found.std() > 0.01
    assert (found - expected.movedim(-1, 1)).abs().max() < 1e-9


def test_the_published_sizes_give_the_published_numbers_of_parameters_and_the_golden_codes():
    one, _, other, _ = both("preres", fill=published.golden, width=256, codes=256)
    assert (one.parameters(), other.parameters()) == (9_620_416, 9_636_065)
    model = aenc_gan_from_keras(one.arrays, other.arrays)
    with torch.no_grad():
        codes = model.encoder(golden_input(2, 1, 16, 16, 16)).flatten()
    found = (codes.mean().item(), codes.std(unbiased=False).item(), codes[0].item(), codes[-1].item())
    assert found == pytest.approx((0.0009800718, 0.0875529125, 0.1136095077, 0.0110809878), rel=1e-5, abs=1e-7)


def test_a_model_goes_back_to_the_arrays_of_keras():
    # Numbered from the beginning in each network, as a file alone would have it.
    fill = published.Drawn()
    one, other = Keras(fill), Keras(fill)
    encoder(one, "preres", 8, CODES)
    generator(other, "preres", 8, CODES)
    back = to_original(aenc_gan_from_keras(one.arrays, other.arrays))
    expected = {f"encoder/{name}": array for name, array in one.arrays.items()}
    expected |= {f"generator/{name}": array for name, array in other.arrays.items()}
    assert back.keys() == expected.keys()
    assert all(np.array_equal(tensor.numpy(), expected[name]) for name, tensor in back.items())


def test_what_is_missing_or_left_over_is_named():
    one, _, other, _ = both("classic")
    del one.arrays["conv3d_1/bias"]
    other.arrays["extra/kernel"] = np.ones(3)
    with pytest.raises(ValueError, match=r"missing: encoder/conv3d_1/bias\. unexpected: generator/extra/kernel"):
        aenc_gan_from_keras(one.arrays, other.arrays)
    with pytest.raises(ValueError, match="the first of the two files"):
        aenc_gan_from_keras({}, other.arrays)


def test_two_files_become_a_folder_that_loads(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is missing: pip install 'pcvideo[convert]'")
    one, _, other, _ = both("preres")
    for name, keras in (("encoder", one), ("generator", other)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, value in keras.arrays.items():
                layer, weight = key.split("/")
                file[f"{layer}/{layer}/{weight}:0"] = value
    files = [str(tmp_path / f"{name}.h5") for name in ("encoder", "generator")]
    assert main(["convert", files[0], str(tmp_path / "mine"), "--generator", files[1]]) == 0
    model = aenc_gan_from_keras(one.arrays, other.arrays)
    loaded = pcvideo.from_pretrained(tmp_path / "mine", dtype=torch.float64)
    volumes = golden_input(1, 1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(volumes, 2), loaded(volumes, 2))
    with pytest.raises(ValueError, match="published in two files"):
        read_original(files[0])
