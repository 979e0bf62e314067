# SPDX-License-Identifier: Apache-2.0
"""Colour differences against published values and a closed form, and the report beside grey."""

from __future__ import annotations

import math

import pytest
import torch

from pcvideo.metrics import ciede2000, score_colours


def plain(red, green, blue, *, lead=()):
    return torch.tensor([red, green, blue], dtype=torch.float64).view(*[1] * len(lead), 3, 1, 1).expand(*lead, 3, 2, 2)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((1, 1, 1), (0, 0, 0), 100.0),
        ((1, 0, 0), (0, 1, 0), 86.61),
        ((1, 0, 0), (0, 0, 1), 52.88),
        ((0.3, 0.6, 0.2), (0.3, 0.6, 0.2), 0.0),
    ],
)
def test_known_colours_are_as_far_apart_as_published(one, other, difference):
    assert ciede2000(plain(*one), plain(*other)).item() == pytest.approx(difference, abs=0.01)


def test_of_greys_it_is_the_difference_of_lightness_by_its_weight():
    one, other = 0.4, 0.55

    def lightness(value):
        return 116 * ((value + 0.055) / 1.055) ** (2.4 / 3) - 16

    middle = (lightness(one) + lightness(other)) / 2
    weight = 1 + 0.015 * (middle - 50) ** 2 / math.sqrt(20 + (middle - 50) ** 2)
    expected = (lightness(other) - lightness(one)) / weight
    # sRGB's grey is not exactly without colour in CIELAB.
    assert ciede2000(plain(*[one] * 3), plain(*[other] * 3)).item() == pytest.approx(expected, abs=1e-3)


def test_one_value_for_each_frame_averaged_over_its_pixels():
    frames = plain(1, 0, 0, lead=(2, 3)).clone()
    frames[1, 2, :, 0] = 0.5
    found = ciede2000(frames, plain(1, 0, 0, lead=(2, 3)))
    assert found.shape == (2, 3)
    half = ciede2000(plain(0.5, 0.5, 0.5), plain(1, 0, 0)) / 2
    torch.testing.assert_close(found[1, 2], half)
    assert found.flatten()[:5].abs().max() == 0


def test_what_is_no_pair_of_colour_frames_is_refused():
    for one, other, error, words in [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), ValueError, "must be RGB"),
        (plain(0, 0, 0), torch.zeros(3, 2, 3), ValueError, "same shape"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), plain(0, 0, 0), TypeError, "must be float"),
    ]:
        with pytest.raises(error, match=words):
            ciede2000(one, other)


def test_a_report_has_the_model_beside_grey():
    batches = [torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count)) for count in (2, 1)]
    seen = []

    def colourise(grey):
        seen.append(grey)
        return torch.cat((grey, 0.5 * grey, grey), dim=1)

    report = score_colours(batches, colourise)
    assert report["samples"] == 3
    frames, greys = torch.cat(batches), torch.cat(seen)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close(greys, (frames * weights).sum(1, keepdim=True))
    for name, picture in (
        ("model", greys * torch.tensor([1, 0.5, 1]).view(3, 1, 1)),
        ("grey", greys.expand(3, 3, -1, -1)),
    ):
        figures = report["colours"][name]
        assert figures["ciede2000"] == pytest.approx(ciede2000(picture, frames).mean().item(), rel=1e-5)
        assert figures["mse_mean"] == pytest.approx((picture - frames).square().mean().item(), rel=1e-5)
        assert figures["lpips"] is None
    assert report["unavailable"] == {"lpips": "left out"}


def test_frames_of_other_forms_and_none_are_refused():
    for frames in ([torch.zeros(3, 16, 16)], [torch.zeros(1, 1, 16, 16)], [None]):
        with pytest.raises(ValueError, match="frames must be batches"):
            score_colours(frames, lambda grey: grey.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="at least one batch"):
        score_colours([], lambda grey: grey)
