# SPDX-License-Identifier: Apache-2.0
"""FrameDoubler: golden numbers of the published code, what it was meant to do and does here, and the contract."""

from __future__ import annotations

import pytest
import torch
from golden import fill_golden, golden_input
from interpolator_contract import InterpolatorContract
from stream_contract import assert_near

from pcvideo.models import FrameDoubler


def near(value):
    return pytest.approx(value, rel=1e-6)


def with_a_head(model, seed=1):
    """As if trained: a head that is no longer zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model.head.weight.normal_(std=0.02)
        model.head.bias.normal_(std=0.02)
    return model


def small(**options):
    torch.manual_seed(0)
    return with_a_head(FrameDoubler(hidden_channels=(4, 6, 8), **options)).double().eval()


def clip(batch=2, length=4, *, channels=1, size=(32, 48), seed=0):
    return torch.rand(batch, length, channels, *size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(
    ("alpha", "mean", "std", "last"),
    [(0.5, -0.0715325713, 0.0681134191, -0.0728967112), (0.6, -0.0715550422, 0.0682212841, -0.0730846715)],
)
def test_legacy_gives_the_published_numbers(alpha, mean, std, last):
    model = fill_golden(FrameDoubler(legacy=True, alpha=alpha).double()).eval()
    with torch.no_grad():
        frames = model(golden_input(2, 5, 1, 16, 24))
    assert frames.shape == (2, 5, 1, 16, 24)
    assert frames.mean().item() == near(mean)
    assert frames.std(correction=0).item() == near(std)
    assert frames.flatten()[-1].item() == near(last)
    # The first frame is out before anything was blended.
    assert frames.flatten()[0].item() == near(-0.0640974194)


def test_legacy_has_228_parameters_of_which_152_get_no_gradient():
    model = FrameDoubler(legacy=True).double()
    model(clip()).square().sum().backward()
    parameters = list(model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == 228
    assert sum(parameter.numel() for parameter in parameters if parameter.grad is None) == 152
    assert all(parameter.grad.abs().max() > 0 for parameter in parameters if parameter.grad is not None)


def transcribed(model, frames):
    """The published forward pass, with the last cell's equations written out."""
    weight, bias = model.cells[-1].to_gates.weight, model.cells[-1].to_gates.bias

    def cell(inputs, state):
        gates = torch.nn.functional.conv2d(torch.cat((inputs, state[0]), 1), weight, bias, padding=1)
        enter, forget, leave, candidate = gates.chunk(4, 1)
        carried = forget.sigmoid() * state[1] + enter.sigmoid() * candidate.tanh()
        return leave.sigmoid() * carried.tanh(), carried

    count = frames.shape[1]
    state, out = (torch.zeros_like(frames[:, 0]),) * 2, []
    for time in range(count - 1):
        state = cell(frames[:, time], state)
        out.append(state[0])
        if time < count - 2:
            state = cell((1 - model.alpha) * frames[:, time] + model.alpha * frames[:, time + 1], state)
    return torch.stack([*out, cell(frames[:, -1], state)[0]], 1)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_legacy_is_the_published_loop_for_every_length(length):
    model, frames = FrameDoubler(legacy=True, alpha=0.3).double(), clip(length=length)
    with torch.no_grad():
        assert_near(model(frames), transcribed(model, frames), 1e-12)


def test_legacy_never_sees_the_frame_after_the_one_between_and_the_default_does():
    frames, other = clip(), clip()
    other[:, 2] = clip(seed=1)[:, 2]
    with torch.no_grad():
        for model, sees in ((FrameDoubler(legacy=True).double(), False), (small(), True)):
            one, another = model(frames, last=False), model(other, last=False)
            assert torch.equal(one[:, 0], another[:, 0])
            assert torch.equal(one[:, 1], another[:, 1]) != sees


@pytest.mark.parametrize("alpha", [0.5, 0.3])
@pytest.mark.parametrize("motion", [True, False])
def test_a_fresh_network_gives_the_blend_of_both_frames_and_after_the_last_one_repeats_it(alpha, motion):
    model, frames = FrameDoubler(alpha=alpha, motion=motion).double(), clip()
    with torch.no_grad():
        found = model(frames)
    torch.testing.assert_close(found[:, :-1], (1 - alpha) * frames[:, :-1] + alpha * frames[:, 1:])
    torch.testing.assert_close(found[:, -1], frames[:, -1])


def test_flows_are_in_pixels_and_say_where_each_frame_is_looked_at():
    model = FrameDoubler(patch=4).double()
    pixels = 16
    with torch.no_grad():
        # Before is seen two columns to the right, after one row up; a quarter of the second is taken.
        model.head.bias[pixels:] = torch.tensor([2 / 4, 0, 0, -1 / 4, -torch.log(torch.tensor(3.0))])
        frames = clip(1, 2)
        middle = model(frames, last=False)[0, 0, 0]
    before, after = frames[0, :, 0]
    expected = 0.75 * before[1:-1, 2:] + 0.25 * after[:-2, :-2]
    torch.testing.assert_close(middle[1:-1, :-2], expected, atol=1e-6, rtol=0)


def test_every_layer_feeds_the_next_one():
    model, frames = small(reach=0), clip(1, 1, size=(96, 96))
    frames.requires_grad_()
    # Through the first layer alone a pixel sees 15 pixels far, through the first two 31.
    model.step(frames[:, 0], None, model.init_state(frames[:, 0]))[0][..., 0, 0].sum().backward()
    reach = frames.grad[0, 0, 0].abs().amax(0).nonzero().max()
    assert reach > 31


@pytest.mark.parametrize("model", [small(), FrameDoubler(legacy=True).double()], ids=["default", "legacy"])
def test_step_by_step_it_gives_what_it_gives_for_the_whole_clip(model):
    frames = clip(length=5)
    state, found = model.init_state(frames[:, 0]), []
    with torch.no_grad():
        whole = model(frames)
        for time in range(5):
            middle, state = model.step(frames[:, time], frames[:, time + 1] if time < 4 else None, state)
            found.append(middle)
        assert_near(torch.stack(found, 1), whole, 1e-12)
        assert_near(model(frames, last=False), whole[:, :-1], 1e-12)
        # What has been given does not depend on what comes.
        assert_near(model(frames[:, :3], last=False), whole[:, :2], 1e-12)


def test_a_match_is_found_along_the_motion_through_the_middle():
    model = FrameDoubler(patch=2, reach=2, hidden_channels=(4,)).double()
    scene = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(3)).double()
    # What is at (x, y) in the middle was one patch left and two up before, and is as far right and down after.
    before, after = scene.roll((-4, -2), (-2, -1)), scene.roll((4, 2), (-2, -1))
    matches = model._matches(before, after, 1)
    best = matches[0, :, 4:-4, 4:-4].argmax(0)
    assert (best == (2 + 2) * 5 + (2 + 1)).all()
    assert matches[0, best[0, 0], 4:-4, 4:-4].min() == 1


def test_without_reach_and_motion_it_is_layers_and_a_head():
    model = FrameDoubler(reach=0, motion=False)
    # 33 channels in, 16 out; then four times 16 and 32; then four times 32 and 64.
    gates = [(33 + 16) * 9 * 64 + 64, (64 + 32) * 9 * 128 + 128, (128 + 64) * 9 * 256 + 256]
    merges = [(32 + 16) * 9 * 16 + 16, (64 + 32) * 9 * 32 + 32]
    assert sum(p.numel() for p in model.parameters()) == sum(gates) + sum(merges) + 16 * 9 * 16 + 16


def test_what_came_before_counts():
    model, frames, other = small(), clip(), clip()
    other[:, 0] = clip(seed=1)[:, 0]
    with torch.no_grad():
        assert not torch.equal(model(frames)[:, 2], model(other)[:, 2])


def test_a_change_of_scene_begins_anew():
    model = small().float()
    dark, light = 0.05 * clip(3, 1)[:, 0].float(), 0.9 + 0.1 * clip(3, 1, seed=1)[:, 0].float()
    frames = model.interpolate(torch.cat((dark, light)))
    assert torch.equal(frames[5], dark[-1])
    for scene, found in ((dark, frames[:5]), (light, frames[6:])):
        torch.testing.assert_close(found, model.interpolate(scene, cut=None))


def test_a_grey_model_takes_a_colour_clip_where_that_is_asked_for():
    model, colour = small().float(), clip(3, 1, channels=3)[:, 0].float()
    with pytest.raises(ValueError, match="to_grey=True"):
        model.interpolate(colour)
    red, green, blue = colour.split(1, dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(model.interpolate(colour, to_grey=True), model.interpolate(grey))


def test_a_single_frame_has_one_after_it_but_none_between():
    model, frames = small(), clip(length=1)
    assert model(frames).shape == frames.shape
    with pytest.raises(ValueError, match="two at least"):
        model(frames, last=False)


@pytest.mark.parametrize("size", [(1, 7), (59, 59)])
def test_legacy_takes_any_size(size):
    model, frames = FrameDoubler(legacy=True).eval(), clip(length=3, size=size).float()
    assert model(frames).shape == frames.shape
    assert model.interpolate(frames[0], 4).shape == (9, 1, *size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": 1.0}, "alpha must be above 0 and below 1"),
        ({"hidden_channels": ()}, "hidden_channels"),
        ({"hidden_channels": "16"}, "hidden_channels"),
        ({"hidden_channels": (4, 0)}, r"hidden_channels\[1\]"),
        ({"hidden_channels": (1, 2), "legacy": True}, "must end with in_channels=1"),
        ({"patch": 4, "legacy": True}, "neither patches nor motion"),
        ({"motion": True, "legacy": True}, "neither patches nor motion"),
        ({"reach": 1, "legacy": True}, "neither patches nor motion"),
        ({"reach": -1}, "reach"),
        ({"patch": 0}, "patch"),
        ({"legacy": 1}, "legacy"),
        ({"in_channels": 0}, "in_channels"),
    ],
)
def test_impossible_numbers_are_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        FrameDoubler(**options)


def test_clips_of_other_forms_are_refused():
    model = small()
    for frames, words in [
        (clip(size=(33, 48)), "the nearest size that fits is 32x48"),
        (clip(channels=3), "expects C=1 channels, got 3"),
        (clip()[0], r"frames\[None\]"),
        (clip()[:, :0], "at least one clip and one frame"),
        (2 * clip(), "frame 0 ranges over"),
        (clip() * torch.tensor([1, float("nan"), 1, 1]).view(1, 4, 1, 1, 1), "frame 1 holds NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            model(frames)


class TestFrameDoubler(InterpolatorContract):
    def make(self):
        return with_a_head(FrameDoubler(in_channels=3, hidden_channels=(4, 6, 8)))

    def test_it_compiles_whole(self):
        model, (before, after) = self.model(), self.pair()
        state = model.init_state(before)
        compiled = torch.compile(model.step, fullgraph=True, backend=self.backend)
        with torch.no_grad():
            for there in (after, None):
                expected, _ = model.step(before, there, state)
                assert_near(compiled(before, there, state)[0], expected, 1e-12)


class TestWithoutReach(TestFrameDoubler):
    backend = None

    def test_it_compiles_whole(self):
        pytest.skip("it consists of what is compiled with reach")

    def make(self):
        return with_a_head(FrameDoubler(in_channels=3, hidden_channels=(4, 6, 8), reach=0))


class TestWithoutMotion(TestFrameDoubler):
    backend = None

    def test_it_compiles_whole(self):
        pytest.skip("it consists of what is compiled with motion")

    def make(self):
        return with_a_head(FrameDoubler(in_channels=3, hidden_channels=(4, 6, 8), motion=False, alpha=0.4))
