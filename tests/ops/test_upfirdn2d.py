# SPDX-License-Identifier: Apache-2.0
"""Filtering with up- and down-sampling against sums in numpy, scipy's upfirdn and the response to sinusoids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from pcvideo.ops.fir import lowpass_taps, upfirdn2d
from pcvideo.ops.fir.reference import upfirdn2d_reference

BORDERS = ["replicate", "reflect", "zeros", "valid"]
CHANNELS = 2


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_taps(kind: str, size: int, channels: int = CHANNELS) -> torch.Tensor:
    """Without symmetry, so that a filter the wrong way round shows."""
    return draw(channels, *(size for _ in range(1 if kind == "separable" else 2)), seed=size)


def around(size: int, up: int) -> tuple[int, int]:
    """How many samples outside of the image a centred filter meets, before and after it."""
    half = size // 2
    return half // up, -(-half // up)


def meets(length: int, up: int, down: int, offset: int, border: str) -> np.ndarray:
    """(outputs, length): 1 where the tap at `offset` from the centre meets a sample of a row of that length."""
    taken = np.zeros((-(-length * up // down), length))
    for output, row in enumerate(taken):
        place = output * down + offset
        if place % up:
            continue
        sample = place // up
        if border == "replicate":
            sample = min(max(sample, 0), length - 1)
        elif border == "reflect":
            sample = abs(sample) if sample < length else 2 * (length - 1) - sample
        if 0 <= sample < length:
            row[sample] = 1
    return taken


def by_definition(image: np.ndarray, taps: np.ndarray, up: int, down: int, border: str) -> np.ndarray:
    """Tap by tap: what each meets, times the tap. With "valid" the samples around are in the image."""
    kernels = taps if taps.ndim == 3 else taps[:, :, None] * taps[:, None, :]
    half = taps.shape[-1] // 2
    before, after = around(taps.shape[-1], up) if border == "valid" else (0, 0)
    height, width = (side - before - after for side in image.shape[2:])
    total = 0
    for row, column in np.ndindex(kernels.shape[1:]):
        if border == "valid":
            rows, columns = (
                meets(side + before + after, up, down, offset - half + before * up, "zeros")[: -(-side * up // down)]
                for side, offset in ((height, row), (width, column))
            )
        else:
            rows = meets(height, up, down, row - half, border)
            columns = meets(width, up, down, column - half, border)
        total = total + kernels[:, row, column][:, None, None] * (rows @ image @ columns.T)
    return total


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", ["separable", "full"])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("up", [1, 2, 3])
def test_it_is_the_definition_tap_by_tap_at_every_size(up, down, kind, border):
    for size in (1, 3, 5, 9):
        before, after = around(size, up)
        smallest = {"reflect": max(before, after) + 1, "valid": before + after + 1}.get(border, 1)
        for height, width in ((7, 6), (1, 2)):
            image = draw(2, CHANNELS, max(height, smallest), max(width, smallest + width % 2))
            taps = draw_taps(kind, size)
            expected = by_definition(image.numpy(), taps.numpy(), up, down, border)
            for form in (upfirdn2d, upfirdn2d_reference):
                filtered = form(image, taps, up=up, down=down, border=border, gain=1.5)
                np.testing.assert_allclose(filtered.numpy(), 1.5 * expected, atol=1e-12, err_msg=f"{form} {size}")


@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("up", [1, 2, 3])
def test_with_black_around_it_is_scipys_upfirdn_along_both_axes(up, down):
    image, taps = draw(1, CHANNELS, 5, 8), draw_taps("separable", 7)

    def along(row: np.ndarray, filter_: np.ndarray) -> np.ndarray:
        # scipy convolves, and begins where the filter first meets the row.
        whole = np.pad(signal.upfirdn(filter_[::-1], row, up), (0, up))
        return whole[3:][: len(row) * up : down]

    expected = [
        np.apply_along_axis(along, 1, np.apply_along_axis(along, 0, channel, filter_), filter_)
        for channel, filter_ in zip(image[0].numpy(), taps.numpy(), strict=True)
    ]
    filtered = upfirdn2d(image, taps, up=up, down=down, border="zeros")
    np.testing.assert_allclose(filtered[0].numpy(), np.stack(expected), atol=1e-13)


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_valid_takes_the_samples_around_that_its_docstring_counts(size, up):
    before, after = size // 2 // up, (up - 1 + size // 2) // up
    image, taps = draw(1, CHANNELS, 5, 6), draw_taps("separable", size)
    wide = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (before, after), (before, after)], mode="edge"))
    torch.testing.assert_close(upfirdn2d(wide, taps, up=up, border="valid"), upfirdn2d(image, taps, up=up))


@pytest.mark.parametrize("kind", ["separable", "full"])
def test_one_filter_serves_all_channels(kind):
    image, taps = draw(2, 3, 5, 6), draw_taps(kind, 3, channels=1)
    for up, down in ((1, 2), (2, 1)):
        repeated = upfirdn2d(image, taps.repeat(3, *[1] * (taps.ndim - 1)), up=up, down=down)
        torch.testing.assert_close(upfirdn2d(image, taps, up=up, down=down), repeated)


@pytest.mark.parametrize(
    ("up", "down", "kind", "border"),
    [
        (1, 1, "full", "reflect"),
        (1, 2, "separable", "replicate"),
        (1, 2, "full", "zeros"),
        (2, 1, "separable", "reflect"),
        (2, 1, "full", "replicate"),
        (3, 2, "separable", "valid"),
    ],
)
def test_first_and_second_derivatives_are_those_of_finite_differences(up, down, kind, border):
    image, taps = draw(1, CHANNELS, 4, 3).requires_grad_(), draw_taps(kind, 3).requires_grad_()

    def run(image: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(image, taps, up=up, down=down, border=border, gain=float(up * up))

    assert torch.autograd.gradcheck(run, (image, taps))
    assert torch.autograd.gradgradcheck(run, (image, taps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("kind", ["separable", "full"])
def test_a_narrow_dtype_is_kept_and_rounded_about_once(dtype, up, down, kind):
    image, taps = draw(1, CHANNELS, 6, 7).to(dtype), draw_taps(kind, 9).to(dtype)
    exact = by_definition(image.double().numpy(), taps.double().numpy(), up, down, "replicate")
    filtered = upfirdn2d(image, taps, up=up, down=down)
    assert filtered.dtype == dtype
    bound = 1e-5 * np.abs(exact).max()
    np.testing.assert_allclose(filtered.double().numpy(), exact, rtol=0.51 * torch.finfo(dtype).eps, atol=bound)


@pytest.mark.parametrize("taps_dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_inputs_not_of_the_taps(taps_dtype):
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert upfirdn2d(draw(1, CHANNELS, 4, 4).to(dtype), draw_taps("full", 3).to(taps_dtype)).dtype == dtype


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1)])
def test_autocast_takes_no_digit_from_images_or_gradients(up, down):
    def run(*, autocast: bool) -> list[torch.Tensor]:
        image, taps = draw(1, CHANNELS, 6, 5).float().requires_grad_(), draw_taps("separable", 5).float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            filtered = upfirdn2d(image, taps.requires_grad_(), up=up, down=down)
        filtered.square().sum().backward()
        return [filtered, image.grad, taps.grad]

    for plain, cast in zip(run(autocast=False), run(autocast=True), strict=True):
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["separable", "full"])
def test_the_layout_in_memory_makes_no_difference(up, down, kind):
    image, taps = draw(2, CHANNELS, 6, 5), draw_taps(kind, 5)
    expected = upfirdn2d(image, taps, up=up, down=down)
    strided = torch.zeros(2, 2 * CHANNELS, 12, 5, dtype=torch.float64)[:, ::2, ::2].copy_(image)
    turned = image.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (strided, turned, image.contiguous(memory_format=torch.channels_last)):
        assert not other.is_contiguous()
        torch.testing.assert_close(upfirdn2d(other, taps, up=up, down=down), expected)
    spread = torch.stack([taps, taps], dim=-1)[..., 0]
    assert not spread.is_contiguous()
    torch.testing.assert_close(upfirdn2d(image, spread, up=up, down=down), expected)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("kind", ["separable", "full"])
def test_channels_last_in_float32_gives_the_definitions_values_and_gradients(up, down, kind):
    image, taps = draw(2, CHANNELS, 9, 6), draw_taps(kind, 5)

    def run(function, dtype):
        leaves = [image.to(dtype).requires_grad_(), taps.to(dtype).requires_grad_()]
        filtered = function(leaves[0].contiguous(memory_format=torch.channels_last), leaves[1], up=up, down=down)
        return [filtered.detach(), *torch.autograd.grad(filtered.square().sum(), leaves)]

    for ours, defined in zip(run(upfirdn2d, torch.float32), run(upfirdn2d_reference, torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), defined, rtol=1e-5, atol=1e-5)


def test_it_compiles_in_one_graph_with_the_same_gradients():
    def loss(image: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        halved = upfirdn2d(image, taps, down=2)
        return upfirdn2d(halved, taps[:, :, None] * taps[:, None], up=2, border="reflect", gain=4.0).square().sum()

    image, taps = draw(1, CHANNELS, 7, 6).requires_grad_(), draw_taps("separable", 3).requires_grad_()
    eager = torch.autograd.grad(loss(image, taps), (image, taps))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for one, other in zip(eager, torch.autograd.grad(compiled(image, taps), (image, taps)), strict=True):
        torch.testing.assert_close(one, other)


def test_it_tells_its_shape_on_the_meta_device_and_takes_an_empty_batch():
    taps = torch.ones(CHANNELS, 5, device="meta")
    assert upfirdn2d(torch.rand(1, CHANNELS, 7, 4, device="meta"), taps, down=2).shape == (1, CHANNELS, 4, 2)
    assert upfirdn2d(torch.rand(0, CHANNELS, 7, 4), torch.ones(CHANNELS, 5), up=3).shape == (0, CHANNELS, 21, 12)


def filtered_wave(frequency: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """What halving makes of a wave along an axis, and the wave at the places that it keeps; away from the border."""
    wave = torch.cos(np.pi * frequency * torch.arange(64, dtype=torch.float64))
    image = (wave[:, None] if axis == 0 else wave).expand(64, 64)
    taps = lowpass_taps(torch.tensor([0.45], dtype=torch.float64))
    inner = slice(4, -4)
    return upfirdn2d(image[None, None], taps, down=2)[0, 0, inner, inner].numpy(), image[::2, ::2][inner, inner].numpy()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_below_the_new_nyquist_frequency_survives_halving(axis):
    for frequency in (0.05, 0.125, 0.25):
        after, before = filtered_wave(frequency, axis)
        share = (after * before).sum() / (before * before).sum()
        # Scaled alone: no phase is shifted. Within 1 dB.
        np.testing.assert_allclose(after, share * before, atol=1e-12)
        assert 10 ** (-1 / 20) < share < 10 ** (1 / 20)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_above_the_new_nyquist_frequency_is_attenuated_instead_of_aliased(axis):
    for frequency in (0.8, 0.9, 1.0):
        after, before = filtered_wave(frequency, axis)
        # Without a filter it would come out whole, as a slower one.
        assert np.abs(before).max() > 0.9
        assert np.abs(after).max() < 10 ** (-20 / 20) * np.abs(before).max()


@pytest.mark.parametrize("down", [1, 2, 3])
def test_a_plain_image_stays_plain_where_the_border_repeats_or_mirrors_it(down):
    taps = lowpass_taps(torch.tensor([0.3, 0.9], dtype=torch.float64))
    plain = torch.full((1, 2, 7, 9), 0.7, dtype=torch.float64)
    for border in ("replicate", "reflect"):
        filtered = upfirdn2d(plain, taps, down=down, border=border)
        np.testing.assert_allclose(filtered.numpy(), 0.7, rtol=1e-14)
    assert upfirdn2d(plain, taps, down=down, border="zeros")[0, 0, 0, 0] < 0.5


def test_doubling_with_the_taps_of_linear_interpolation_interpolates_linearly():
    row = draw(1, 1, 1, 6)
    doubled = upfirdn2d(row, torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64), up=2, gain=4.0)
    expected = np.interp(np.arange(12) / 2, np.arange(6), row[0, 0, 0].numpy())
    np.testing.assert_allclose(doubled[0, 0].numpy(), np.stack([expected, expected]), rtol=1e-14)


IMAGE, TAPS = torch.rand(1, 3, 4, 4), torch.ones(3, 5)


@pytest.mark.parametrize(
    ("inputs", "taps", "arguments", "error", "words"),
    [
        (IMAGE.numpy(), TAPS, {}, TypeError, r"inputs must be a float tensor \(B, C, H, W\)"),
        (IMAGE.byte(), TAPS, {}, TypeError, r"inputs must be a float tensor .*uint8"),
        (IMAGE[0], TAPS, {}, TypeError, r"inputs must be .*\(3, 4, 4\)"),
        (IMAGE, TAPS.tolist(), {}, TypeError, "taps must be a float tensor"),
        (IMAGE, TAPS.long(), {}, TypeError, "taps must be a float tensor"),
        (IMAGE, TAPS[0], {}, TypeError, r"taps must be a float tensor \(C, N\) or \(C, N, N\), got .*\(5,\)"),
        (IMAGE, TAPS[:, :4], {}, ValueError, r"N odd, got \(3, 4\)"),
        (IMAGE, TAPS[:, :0], {}, ValueError, r"N odd, got \(3, 0\)"),
        (IMAGE, torch.ones(3, 3, 5), {}, ValueError, r"N odd, got \(3, 3, 5\)"),
        (IMAGE, TAPS[:2], {}, ValueError, "each of the 3 channels, or one for all, got 2"),
        (IMAGE, TAPS, {"up": 0}, ValueError, "up must be a whole number of at least 1, got 0"),
        (IMAGE, TAPS, {"up": 2.0}, TypeError, "up must be a whole number"),
        (IMAGE, TAPS, {"down": -1}, ValueError, "down must be"),
        (IMAGE, TAPS, {"down": True}, TypeError, "down must be"),
        (IMAGE, TAPS, {"border": "reflct"}, ValueError, "border must be .*did you mean 'reflect'"),
        (IMAGE, TAPS, {"gain": "4"}, TypeError, "gain must be a number"),
        (IMAGE, TAPS, {"gain": float("nan")}, ValueError, "gain must be a finite number"),
        (
            IMAGE[..., :2],
            TAPS,
            {"border": "reflect"},
            ValueError,
            r"at least 3 rows .*got \(4, 2\); border='replicate'",
        ),
        (IMAGE, TAPS, {"border": "valid"}, ValueError, r"at least 5 rows and columns for 5 taps with border='valid'"),
        (IMAGE[..., :0], TAPS, {}, ValueError, "at least 1 rows and columns"),
    ],
)
def test_what_it_refuses_it_names(inputs, taps, arguments, error, words):
    with pytest.raises(error, match=words):
        upfirdn2d(inputs, taps, **arguments)
