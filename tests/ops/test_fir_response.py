# SPDX-License-Identifier: Apache-2.0
"""Frequency responses against numpy's FFT and a loop, and filters in figures against a table of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pcvideo.ops.fir import FilterReport, describe_filter, frequency_response, lowpass_taps, reshaped_taps

INITIAL = 0.8807970779778823  # sigmoid(2), the published network's first cutoff

# Computed apart from this library, and rounded. By name: builder and arguments; gains at (0, pi) and (pi, 0); mean of
# the stop band h, v and its worst, in dB; aliased white noise in all, h, v, and aliased 1/f^2, in %; smallest and
# largest gain in the pass band. "?" is not known.
TABLE = {
    "no filter": ("delta", {}, "1.000 1.000", "0 0 0", "74.6 25.0 25.0 12.75", "1 1"),
    "reshaped, .881": ("reshaped", {"cutoff": INITIAL}, ".892 .805", "-1.2 .4 1.9", "69.4 22.2 32.7 11.23", ".949 ?"),
    "reshaped, .70": ("reshaped", {"cutoff": 0.7}, "-.239 .820", "-7.1 .3 1.7", "61.0 7.4 40.5 8.08", ".983 ?"),
    "reshaped, .50": ("reshaped", {"cutoff": 0.5}, "-.275 1.276", "-9.4 -.9 2.1", "50.0 6.1 42.9 5.67", ".965 1.085"),
    "Hamming 5, .881": ("hamming 5", {"cutoff": INITIAL}, ".746 .746", "-2.1 -2.1 -.9", "64.8 ? ? 8.36", ".980 ?"),
    "Hamming 5, .5": ("hamming 5", {"cutoff": 0.5}, ".185 .185", "-10.3 -10.3 -4.7", "26.5 12.2 12.2 1.60", ".881 ?"),
    "Hamming 5, .4": ("hamming 5", {"cutoff": 0.4}, ".119 .119", "-12.6 -12.6 -5.9", "19.5 ? ? 1.03", ".851 ?"),
    "Kaiser(2.5) 5": ("kaiser 5", {"beta": 2.5}, ".004 .004", "-14.1 -14.1 -6.2", "14.3 ? ? .78", ".854 ?"),
    "Hamming 7": ("hamming 7", {}, ".028 .028", "-13.9 ? -6.0", "13.7 ? ? .80", ".882 ?"),
    "Kaiser(5) 9": ("kaiser 9", {"beta": 5.0}, "-.004 -.004", "-15.2 ? -6.4", "9.6 ? ? .61", ".922 ?"),
    "Hamming 13": ("hamming 13", {}, "-.001 -.001", "-16.5 ? -6.5", "6.0 ? ? .45", ".990 ?"),
    "radial 5x5, .881": ("round hamming 5", {"cutoff": INITIAL}, ".560 .560", "-4.0 ? -.9", "48.8 ? ? 5.41", ".997 ?"),
    "radial 5x5": ("round hamming 5", {}, ".019 .019", "-15.7 ? -7.0", "11.3 5.5 5.5 .56", ".830 ?"),
    "radial Kaiser(4) 7x7": ("round kaiser 7", {"beta": 4.0}, ".008 .008", "-19.5 ? -7.4", "4.3 ? ? .25", ".921 ?"),
    "radial Kaiser(5) 9x9": (
        "round kaiser 9",
        {"beta": 5.0},
        ".011 .011",
        "-20.1 ? -7.1",
        "3.2 ? ? .22",
        "1.000 1.042",
    ),
    "binomial": ("binomial", {}, ".000 .000", "-23.8 ? -12.5", "2.8 ? ? .10", ".729 ?"),
}


def build(name: str, *, cutoff: float = 0.5, beta: float = 4.0) -> torch.Tensor:
    at = torch.tensor([cutoff], dtype=torch.float64)
    if name == "delta":
        return torch.ones(1, 1, dtype=torch.float64)
    if name == "binomial":
        return torch.tensor([[1, 4, 6, 4, 1]], dtype=torch.float64) / 16
    if name == "reshaped":
        return reshaped_taps(at)
    *radial, window, taps = name.split()
    return lowpass_taps(at, int(taps), design="radial" if radial else "separable", window=window, beta=beta)


@pytest.mark.parametrize("name", list(TABLE))
def test_every_figure_of_the_table_comes_out_to_its_printed_digits(name):
    builder, arguments, *printed = TABLE[name]
    (report,) = describe_filter(build(builder, **arguments))
    shares = [report.aliased_white, report.aliased_white_horizontal, report.aliased_white_vertical]
    figures = [report.gain_horizontal, report.gain_vertical]
    figures += [report.stopband_horizontal_db, report.stopband_vertical_db, report.stopband_worst_db]
    figures += [100 * share for share in [*shares, report.aliased_natural]]
    figures += [report.passband_min, report.passband_max]
    for text, figure in zip(" ".join(printed).split(), figures, strict=True):
        if text != "?":
            digits = len(text.partition(".")[2])
            assert abs(figure - float(text)) <= 0.5 * 10**-digits + 1e-12, (text, figure)


def test_the_published_filter_is_skewed_and_treats_the_axes_unalike():
    (report,) = describe_filter(build("reshaped", cutoff=INITIAL))
    assert round(report.skew, 2) == 0.41
    assert round(report.asymmetry, 2) == 0.79


class Measured(NamedTuple):
    """A square kernel before a decimation by 2, by numpy's FFT on 256 x 256 frequencies."""

    aliased: float  # share of white noise above the new Nyquist
    horizontal: float  # mean power in dB where the horizontal frequency alone is above it
    vertical: float
    passband: np.ndarray  # gains in dB at less than a quarter of the old Nyquist, 0 left out
    edge: np.ndarray  # gains in dB at a quarter
    asymmetry: float


def measure(kernel: np.ndarray) -> Measured:
    gain = np.abs(np.fft.fft2(kernel, (256, 256)))
    # In 256ths of the sampling frequency, so that comparisons are exact.
    frequency = np.abs(np.fft.fftfreq(256, 1 / 256))
    high = frequency > 64
    power, distance = gain**2, frequency[:, None] ** 2 + frequency**2
    return Measured(
        aliased=1 - power[np.ix_(~high, ~high)].sum() / power.sum(),
        horizontal=10 * np.log10(power[np.ix_(~high, high)].mean()),
        vertical=10 * np.log10(power[np.ix_(high, ~high)].mean()),
        passband=20 * np.log10(gain[(distance > 0) & (distance < 32**2)]),
        edge=20 * np.log10(gain[distance == 32**2]),
        asymmetry=np.abs(kernel - kernel.T).max(),
    )


def test_the_default_filter_is_a_low_pass():
    taps = lowpass_taps(torch.tensor([0.9 * 0.5], dtype=torch.float64))
    assert taps.shape == (1, 9)
    found = measure(np.outer(taps[0], taps[0]))
    assert found.aliased < 0.1
    assert max(found.horizontal, found.vertical) <= -14
    assert np.abs(found.passband).max() <= 1
    assert np.abs(found.edge).max() <= 1
    assert found.asymmetry < 1e-15
    # What is said of it.
    assert (round(100 * found.aliased, 1), round(found.passband.min(), 1)) == (4.5, -0.9)

    (report,) = describe_filter(taps)
    assert report.aliased_white == pytest.approx(found.aliased, rel=1e-9)
    assert report.stopband_horizontal_db == pytest.approx(found.horizontal, rel=1e-9)
    assert report.stopband_vertical_db == pytest.approx(found.vertical, rel=1e-9)
    assert 20 * math.log10(report.passband_min) == pytest.approx(found.edge.min(), rel=1e-9)
    assert report.asymmetry < 1e-14


# The published cutoff can't go much below 0.49.
@pytest.mark.parametrize("cutoff", [0.49, 0.5, 0.7, INITIAL, 0.95])
def test_the_published_filter_is_none_at_any_cutoff_it_can_reach(cutoff):
    taps = reshaped_taps(torch.tensor([cutoff], dtype=torch.float64))
    found = measure(taps[0].numpy())
    assert found.aliased >= 0.5
    assert found.vertical > -1
    assert found.asymmetry > 0.01
    # Of what is asked of a low-pass, it meets this alone.
    assert np.abs(found.passband).max() <= 1

    (report,) = describe_filter(taps)
    assert report.aliased_white == pytest.approx(found.aliased, rel=1e-9)
    assert report.stopband_vertical_db == pytest.approx(found.vertical, rel=1e-9)


def test_the_response_is_the_fourier_sum_around_the_centre():
    kernel = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    response = frequency_response(kernel, 12)
    frequency = np.fft.fftfreq(12)
    for channel, v, u in np.ndindex(2, 12, 12):
        expected = sum(
            kernel[channel, y + 2, x + 2].item() * np.exp(-2j * np.pi * (frequency[v] * y + frequency[u] * x))
            for y in range(-2, 3)
            for x in range(-2, 3)
        )
        assert response[channel, v, u].item() == pytest.approx(expected, abs=1e-12)


def test_separable_taps_have_the_response_of_their_outer_product():
    taps = lowpass_taps(torch.tensor([0.3, 0.6], dtype=torch.float64), 7)
    full = torch.einsum("cy,cx->cyx", taps, taps)
    torch.testing.assert_close(frequency_response(taps, 16), frequency_response(full, 16))
    torch.testing.assert_close(frequency_response(taps, 16).imag, torch.zeros(2, 16, 16, dtype=torch.float64))


def test_each_channel_has_a_report_of_its_own():
    taps = lowpass_taps(torch.tensor([0.3, 0.6]))
    together = describe_filter(taps)
    assert together == [describe_filter(one[None])[0] for one in taps]
    assert together[0].aliased_white < together[1].aliased_white


def test_a_decimation_by_four_is_measured_at_its_own_nyquist():
    # Of a flat spectrum, what lies on the 65 of 256 rows and columns at up to a quarter of Nyquist is kept.
    delta = torch.ones(1, 1)
    (report,) = describe_filter(delta, factor=4)
    assert report.aliased_white == pytest.approx(1 - (65 / 256) ** 2)
    (quarter,) = describe_filter(lowpass_taps(torch.tensor([0.9 / 4]), 17), factor=4)
    (half,) = describe_filter(lowpass_taps(torch.tensor([0.9 / 2]), 17), factor=4)
    assert quarter.aliased_white < 0.1 < half.aliased_white


def test_a_filter_with_nothing_in_its_stop_band_has_finite_decibels():
    # Zeros at 3/4 and at all of the Nyquist frequency, which are the whole stop band of a grid of 8.
    taps = torch.from_numpy(np.convolve([1, 2, 1], [1, math.sqrt(2), 1]) / (8 + 4 * math.sqrt(2)))
    (report,) = describe_filter(taps[None], size=8)
    assert report.stopband_worst_db == -300
    assert all(math.isfinite(figure) for figure in report)
    assert isinstance(report, FilterReport)


@pytest.mark.parametrize(
    ("taps", "arguments", "error", "words"),
    [
        ([1.0], {}, TypeError, "float tensor"),
        (torch.ones(1, 3, dtype=torch.int64), {}, TypeError, "float tensor"),
        (torch.ones(3), {}, ValueError, r"taps\[None\]"),
        (torch.ones(1, 3, 5), {}, ValueError, r"\(C, N, N\)"),
        (torch.ones(1, 4), {}, ValueError, "odd"),
        (torch.ones(0, 3), {}, ValueError, r"\(C, N\)"),
        (torch.stack([torch.ones(3), torch.zeros(3)]), {}, ValueError, "channel 1"),
        (torch.full((1, 3), math.nan), {}, ValueError, "channel 0"),
        (torch.ones(1, 3), {"factor": 1}, ValueError, "factor"),
        (torch.ones(1, 3), {"size": 255}, ValueError, "take 256"),
        (torch.ones(1, 3), {"size": 6}, ValueError, "size"),
    ],
)
def test_bad_arguments_are_refused_with_the_mend(taps, arguments, error, words):
    with pytest.raises(error, match=words):
        describe_filter(taps, **arguments)
