# SPDX-License-Identifier: Apache-2.0
"""The checks of the public doors: what they let through, and what their errors teach."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from pcvideo import _checks


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(3)])
def test_whole_numbers_come_back_as_int(value):
    assert type(_checks.check_int("n", value)) is int


@pytest.mark.parametrize("value", [2.0, 2.5, True, False, "3", None, float("nan"), np.float32(2), torch.tensor(2)])
def test_what_is_no_whole_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="n must be a whole number of at least 1, got "):
        _checks.check_int("n", value)


@pytest.mark.parametrize(("value", "minimum"), [(0, 1), (-1, 0), (4, 5)])
def test_a_whole_number_below_the_minimum_is_a_value_error(value, minimum):
    with pytest.raises(ValueError, match=f"n must be a whole number of at least {minimum}, got {value}"):
        _checks.check_int("n", value, minimum=minimum)


def test_numbers_have_to_be_finite_and_within_their_bounds():
    assert _checks.check_number("x", np.float32(0.5), minimum=0, maximum=1) == 0.5
    assert _checks.check_number("x", 1, minimum=0, maximum=1) == 1.0
    for value in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"x must be a finite number in \[0, 1\]"):
            _checks.check_number("x", value, minimum=0, maximum=1)
    with pytest.raises(ValueError, match=r"\[-inf, inf\]"):
        _checks.check_number("x", float("inf"))
    for value in (True, "1", None):
        with pytest.raises(TypeError, match="x must be a number, got"):
            _checks.check_number("x", value)


@pytest.mark.parametrize("value", [0, 1, "yes", None, np.bool_(True)])
def test_what_merely_counts_as_true_or_false_is_refused(value):
    assert _checks.check_bool("flag", False) is False
    with pytest.raises(TypeError, match="flag must be True or False, got"):
        _checks.check_bool("flag", value)


def test_a_wrong_choice_and_a_wrong_key_are_told_with_the_nearest_one():
    assert _checks.check_choice("kind", None, (None, "mean")) is None
    with pytest.raises(ValueError, match="kind must be one of None, 'mean', got 'maen'; did you mean 'mean'"):
        _checks.check_choice("kind", "maen", (None, "mean"))
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        _checks.check_choice("kind", "zzz", (None, "mean"))
    _checks.check_keys("the config", ["a"], ["a", "b"])
    with pytest.raises(
        ValueError, match=r"the config has the unknown key 'hiden'; did you mean 'hidden'.*known: hidden, x"
    ):
        _checks.check_keys("the config", ["hiden"], ["x", "hidden"])


@pytest.mark.parametrize(
    ("height", "width", "fit"), [(59, 59, "56x56"), (61, 67, "64x64"), (1, 8, "8x8"), (0, 16, "8x16"), (8, 0, "8x8")]
)
def test_a_size_that_does_not_fit_is_told_the_nearest_one(height, width, fit):
    with pytest.raises(ValueError, match=f"divisible by 8, got {height}x{width}; the nearest size that fits is {fit}"):
        _checks.check_size("frames", height, width, 8)


def test_sizes_that_fit_pass():
    _checks.check_size("frames", 64, 128, 64)
    _checks.check_size("frames", 59, 1, 1)


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), 1.01, -0.01, 255.0])
@pytest.mark.parametrize("frame", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_first_bad_frame_is_named(fault, frame, dtype):
    clip = torch.rand(2, 5, 1, 3, 3).to(dtype)
    clip[1, frame, 0, 1, 1] = fault
    clip[0, 4] = 9
    with pytest.raises(ValueError, match=f"frames: frame {frame} (holds NaN|ranges over)"):
        _checks.check_values("frames", clip)


def test_rounding_at_the_ends_of_the_range_is_let_through():
    _checks.check_values("frames", torch.tensor([0.0, 1.0, -5e-4, 1 + 5e-4]).view(1, 1, 1, 2, 2))
    _checks.check_values("frames", torch.empty(1, 1, 1, 2, 2, device="meta"))


def test_grey_and_colour_mixed_up_is_told_with_the_mend():
    with pytest.raises(ValueError, match=r"expects C=1 channels, got 3; predict.*to_grey=True"):
        _checks.check_channels("frames", 3, 1)
    with pytest.raises(ValueError, match="expects C=3 channels, got 1; repeat the grey channel"):
        _checks.check_channels("frames", 1, 3)


def test_things_are_described_in_a_few_words_on_one_line():
    assert _checks.describe(torch.zeros(2, 3)) == "a tensor of shape (2, 3) and dtype torch.float32"
    assert _checks.describe(np.zeros((4,), np.uint8)) == "an array of shape (4,) and dtype uint8"
    assert _checks.describe("x" * 500) == "str '" + "x" * 76 + "..."
    assert _checks.describe(torch.nn.Sequential(torch.nn.ReLU())) == "Sequential Sequential( (0): ReLU() )"


def test_checking_good_frames_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _checks.check_clip("frames", torch.rand(1, 2, 3, 8, 8, requires_grad=True), channels=3, multiple=8)
        _checks.check_values("frames", torch.rand(1, 2, 3, 8, 8, requires_grad=True))
