# SPDX-License-Identifier: Apache-2.0
"""Low-pass taps against scipy's sinc, Bessel functions and windows, published figures, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from pcvideo.ops.fir import lowpass_taps, reshaped_taps

# Among them 0.5627 and 0.5628 at a radius of 2 sqrt(2), between which torch.special.bessel_j1 makes a jump.
CUTOFFS = [0.05, 0.45, 0.5, 0.5627, 0.5628, 0.8807970780, 1.0]
# What the published network computes: the left half of its 25 taps, and their centre.
PUBLISHED_HALF = {
    0.8807970779778823: [
        0.0020673107, -0.0022910750, 0.0025524012, -0.0017188840, -0.0017870434, 0.0094944158, -0.0222992735,
        0.0399797752, -0.0609858819, 0.0826032725, -0.1014781100, 0.1143743968, 0.8789773912,
    ],
    0.5: [
        0, -0.0027732387, 0, 0.0076074211, 0, -0.0191739222, 0, 0.0420279569, 0, -0.0919634833, 0, 0.3138516144,
        0.5008473037,
    ],
}  # fmt: skip
DESIGNS = [(design, window) for design in ("separable", "radial") for window in ("kaiser", "hamming")]


def cutoffs(*values: float) -> torch.Tensor:
    return torch.tensor(values or CUTOFFS, dtype=torch.float64)


def window_of(name: str, beta: float, position: np.ndarray) -> np.ndarray:
    if name == "hamming":
        return 0.54 + 0.46 * np.cos(np.pi * position)
    return special.i0(beta * np.sqrt(np.clip(1 - position**2, 0, None))) / special.i0(beta)


def jinc(cutoff: float, radius: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(radius == 0, np.pi * cutoff**2 / 4, cutoff * special.j1(np.pi * cutoff * radius) / (2 * radius))


def radii(taps: int) -> np.ndarray:
    offsets = np.arange(taps) - taps // 2
    return np.hypot(offsets[:, None], offsets)


@pytest.mark.parametrize("taps", [3, 5, 9, 25])
def test_separable_taps_are_numpys_sinc_under_numpys_windows(taps):
    offsets = np.arange(taps) - taps // 2
    for window, weights in (("kaiser", np.kaiser(taps, 4.0)), ("hamming", np.hamming(taps))):
        expected = np.stack([cutoff * np.sinc(cutoff * offsets) * weights for cutoff in CUTOFFS])
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(lowpass_taps(cutoffs(), taps, window=window).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("window", ["kaiser", "hamming"])
@pytest.mark.parametrize("taps", [3, 5, 9, 25])
def test_radial_taps_are_scipys_jinc_under_a_window_that_ends_in_the_corner(taps, window):
    radius = radii(taps)
    weights = window_of(window, 2.5, radius / (math.sqrt(2) * (taps // 2)))
    expected = np.stack([jinc(cutoff, radius) * weights for cutoff in CUTOFFS])
    expected /= expected.sum(axis=(1, 2), keepdims=True)
    built = lowpass_taps(cutoffs(), taps, design="radial", window=window, beta=2.5)
    np.testing.assert_allclose(built.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("cutoff", list(PUBLISHED_HALF))
def test_reshaped_taps_are_the_published_25_in_rows_of_five(cutoff):
    half = PUBLISHED_HALF[cutoff]
    expected = np.array([*half, *half[-2::-1]]).reshape(5, 5)
    np.testing.assert_allclose(reshaped_taps(cutoffs(cutoff)).numpy()[0], expected, atol=5.1e-11)


@pytest.mark.parametrize(("design", "window"), DESIGNS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_each_channel_sums_to_one_in_the_dtype_of_the_cutoff(design, window, dtype):
    cutoff = cutoffs().to(dtype)
    for built in (lowpass_taps(cutoff, design=design, window=window), reshaped_taps(cutoff)):
        assert built.dtype == dtype
        # Each of up to 81 taps is rounded on its own.
        bound = 9 * torch.finfo(dtype).eps
        np.testing.assert_allclose(built.flatten(1).double().sum(dim=1).numpy(), 1, atol=bound)


@pytest.mark.parametrize(("design", "window"), DESIGNS)
def test_first_and_second_derivatives_are_those_of_finite_differences(design, window):
    cutoff = cutoffs(0.3, 0.5627, 0.9).requires_grad_()
    arguments = {"taps": 7, "design": design, "window": window}
    assert torch.autograd.gradcheck(lambda at: lowpass_taps(at, **arguments), cutoff, rtol=1e-6, atol=1e-8)
    assert torch.autograd.gradgradcheck(lambda at: lowpass_taps(at, **arguments), cutoff)


def test_derivatives_of_the_published_filter_are_those_of_finite_differences():
    cutoff = cutoffs(0.5, 0.8807970780).requires_grad_()
    assert torch.autograd.gradcheck(reshaped_taps, cutoff)
    assert torch.autograd.gradgradcheck(reshaped_taps, cutoff)


@pytest.mark.parametrize("cutoff", [0.25, 0.45, 0.5627, 0.88])
def test_the_derivative_of_the_jinc_is_half_pi_c_j0(cutoff):
    # Of a tap over the centre's, so that neither the sum nor its derivative comes in: the quotient rule on
    # f' = (pi c / 2) J0(pi c r) and f(0)' = pi c / 2.
    taps, radius = 5, radii(5)
    at = cutoffs(cutoff)

    def relative(at: torch.Tensor) -> torch.Tensor:
        built = lowpass_taps(at, taps, design="radial")[0]
        return built / built[2, 2]

    slope = torch.autograd.functional.jacobian(relative, at)[..., 0]
    weights = window_of("kaiser", 4.0, radius / math.sqrt(8))
    here, centre = jinc(cutoff, radius), math.pi * cutoff**2 / 4
    rise, centre_rise = math.pi * cutoff / 2 * special.j0(math.pi * cutoff * radius), math.pi * cutoff / 2
    np.testing.assert_allclose(relative(at).numpy(), weights * here / centre, atol=1e-14)
    expected = weights * (rise * centre - here * centre_rise) / centre**2
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("design", ["separable", "radial", "reshaped"])
def test_it_compiles_and_exports_in_one_graph(design):
    class Taps(torch.nn.Module):
        def forward(self, cutoff):
            return reshaped_taps(cutoff) if design == "reshaped" else lowpass_taps(cutoff, design=design)

    cutoff, twin = (cutoffs(0.3, 0.45, 0.9).requires_grad_() for _ in range(2))
    weights = torch.randn_like(Taps()(cutoff))
    (Taps()(cutoff) * weights).sum().backward()
    (torch.compile(Taps(), fullgraph=True, backend="aot_eager")(twin) * weights).sum().backward()
    torch.testing.assert_close(twin.grad, cutoff.grad)
    exported = torch.export.export(Taps(), (cutoffs(0.3, 0.45, 0.9),))
    torch.testing.assert_close(exported.module()(cutoffs(0.2, 0.5, 0.7)), Taps()(cutoffs(0.2, 0.5, 0.7)))


@pytest.mark.parametrize(
    ("cutoff", "arguments", "error", "words"),
    [
        (0.45, {}, TypeError, "torch.tensor"),
        (torch.tensor([1]), {}, TypeError, "float tensor"),
        (torch.tensor(0.45), {}, ValueError, r"cutoff\[None\]"),
        (torch.zeros(0), {}, ValueError, "at least one channel"),
        (torch.tensor([0.5, 0.0]), {}, ValueError, r"\(0, 1\]"),
        (torch.tensor([0.5, math.pi / 2]), {}, ValueError, "divided by pi"),
        (torch.tensor([math.nan]), {}, ValueError, r"\(0, 1\]"),
        (torch.tensor([0.5]), {"taps": 8}, ValueError, "take 9"),
        (torch.tensor([0.5]), {"taps": 1}, ValueError, "at least 3"),
        (torch.tensor([0.5]), {"taps": 9.0}, TypeError, "taps"),
        (torch.tensor([0.5]), {"design": "radical"}, ValueError, "did you mean 'radial'"),
        (torch.tensor([0.5]), {"window": "hann"}, ValueError, "kaiser"),
        (torch.tensor([0.5]), {"beta": -1.0}, ValueError, "beta"),
    ],
)
def test_bad_arguments_are_refused_with_the_mend(cutoff, arguments, error, words):
    with pytest.raises(error, match=words):
        lowpass_taps(cutoff, **arguments)
    if not arguments:
        with pytest.raises(error, match=words):
            reshaped_taps(cutoff)
