# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI: golden numbers of the published code, the mask rule against a plain transcription, and the contract."""

from __future__ import annotations

import pytest
import torch
from golden import fill_golden
from interpolator_contract import InterpolatorContract
from stream_contract import assert_near
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pcvideo.models import WaveletVFI
from pcvideo.models.wavelet_vfi.context import merge
from pcvideo.ops import haar_dwt, haar_idwt


def wave(phase):
    """The golden input with another phase, 1x3x64x96."""
    return (0.5 + 0.5 * torch.sin(0.05 * torch.arange(3 * 64 * 96, dtype=torch.float64) + phase)).view(1, 3, 64, 96)


@pytest.fixture(scope="module")
def published():
    return fill_golden(WaveletVFI().double()).eval()


@pytest.fixture(scope="module")
def golden(published):
    with torch.no_grad():
        return published.explain(wave(0.2), wave(0.9), 0.0)


def near(value):
    return pytest.approx(value, rel=1e-6)


def test_it_has_as_many_parameters_as_the_published_network():
    with torch.device("meta"):
        model = WaveletVFI()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts == {"motion": 4_783_352, "context": 835_152, "synthesis": 13_792_647}
    assert sum(counts.values()) == 19_411_151


def test_its_flows_mask_and_logits_are_the_published_ones(golden):
    motion = golden.motion
    assert motion.to_before.mean().item() == near(1.0803308325)
    assert motion.to_before.std(correction=0).item() == near(0.3720583416)
    assert motion.to_before.flatten()[0].item() == near(0.6384198866)
    assert motion.to_after.mean().item() == near(0.5377980466)
    assert motion.to_after.flatten()[0].item() == near(1.1784248663)
    assert motion.share.mean().item() == near(0.4177684403)
    assert motion.share.flatten()[0].item() == near(0.4176914728)
    assert motion.logits[0, 0].item() == near(0.4531335328)
    assert motion.logits[0, -1].item() == near(-0.4107812799)
    assert motion.logits.mean().item() == near(0.0538463429)


def test_its_merge_and_frame_are_the_published_ones(golden):
    mixed = merge(wave(0.2), wave(0.9), golden.motion)
    assert mixed.mean().item() == near(0.4999498570)
    assert mixed.flatten()[0].item() == near(0.5999544762)
    assert golden.frame.mean().item() == near(0.0958137095)
    assert golden.frame.std(correction=0).item() == near(0.0995204629)
    assert golden.frame.flatten()[0].item() == near(0.4927253296)
    assert golden.frame.flatten()[-1].item() == near(0.2465565273)


def test_with_a_threshold_of_zero_everything_is_computed(golden):
    assert [float(mask.mean()) for mask in golden.synthesis.masks] == [1, 1, 1]
    assert golden.synthesis.cost.item() == 1


def test_the_classifier_chooses_where_no_threshold_is_given(published):
    with torch.no_grad():
        assert published.explain(wave(0.2), wave(0.9)).threshold.tolist() == [pytest.approx(0.01)]


def small(seed=0):
    """Weights whose bands differ in size, so that thresholds leave out some of the picture."""
    torch.manual_seed(seed)
    model = WaveletVFI(width=0.1).double().eval()
    with torch.no_grad():
        for layer in (model.synthesis.to_low, model.synthesis.to_high, *(level.to_outputs for level in levels(model))):
            layer.bias.zero_()
            layer.weight.mul_(4)
        for level in levels(model):
            level.to_features.weight.mul_(2)
    return model


def levels(model):
    return model.synthesis.levels


def pictures():
    """Two pairs, noise on the left, nearly flat on the right."""
    before, after = (torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    before[..., 60:], after[..., 60:] = 0.1 * before[..., 60:] + 0.4, 0.5
    return before, after


def transcribed(model, contexts, threshold):
    """The published decoder, step by step: dense convolutions, multiplied by masks."""
    synthesis = model.synthesis
    features = synthesis.coarsest(contexts[3])
    low = 16 * synthesis.to_low(features)
    high = 8 * synthesis.to_high(features).view(low.shape[0], 3, 3, *low.shape[2:])
    low = haar_idwt(low, high)
    masks, cost, dense = [], 0, 0
    for level, (scale, layer) in enumerate(zip((4, 2, 1), reversed(synthesis.levels), strict=True)):
        extent = low.amax((2, 3), keepdim=True) - low.amin((2, 3), keepdim=True)
        stands_out = (high.abs().amax(dim=2) > threshold * extent).any(dim=1, keepdim=True).double()
        mask = F.interpolate(stands_out, scale_factor=2, mode="nearest")
        dilated = F.max_pool2d(mask, 3, 1, 1)
        seen = torch.cat((contexts[2 - level], F.interpolate(features, scale_factor=2, mode="nearest")), dim=1)
        features = F.leaky_relu(layer.to_features(seen) * dilated, 0.1)
        high = scale * (layer.to_outputs(features) * mask).view(low.shape[0], 3, 3, *low.shape[2:])
        low = haar_idwt(low, high)
        masks.insert(0, mask)
        inner, outer = layer.to_features.out_channels, layer.to_features.in_channels
        share = 4.0 ** -(3 - level)
        cost = cost + share * (dilated.mean((1, 2, 3)) * outer * inner + mask.mean((1, 2, 3)) * inner * 9)
        dense = dense + share * (outer * inner + inner * 9)
    return low, masks, cost / dense


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.3, 0.35, 5.0])
def test_sparse_dense_and_for_several_thresholds_it_gives_the_frame_of_the_published_steps(threshold):
    model, (before, after) = small(), pictures()
    with torch.no_grad():
        motion = model.motion(before, after)
        low, masks, cost = transcribed(model, model.context(before, after, motion), threshold)
        sparse = model.explain(before, after, threshold)
        shared = model.explain_each(before, after, [0.0, threshold])[1]
    dense = model.explain(before, after, threshold)
    for middle in (sparse, shared, dense):
        assert_near(middle.synthesis.frame, low, 1e-9)
        for own, expected in zip(middle.synthesis.masks, masks, strict=True):
            assert torch.equal(own, expected)
        torch.testing.assert_close(middle.synthesis.cost, cost.float())


def test_the_thresholds_of_that_test_leave_out_nothing_some_and_everything():
    model, (before, after) = small(), pictures()
    with torch.no_grad():
        costs = [model.explain(before, after, threshold).synthesis.cost.mean() for threshold in (0.0, 0.2, 0.3, 5.0)]
    assert costs[0] == 1
    assert 0.05 < costs[2] < 0.5 < costs[1] < 0.95
    assert costs[3] == 0


def test_training_for_four_thresholds_gives_each_one_its_own_gradients():
    pair = [torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1)]
    gradients = []
    for together in (True, False):
        model = small()
        thresholds = [0.0, 0.25, 0.3]
        middles = model.explain_each(*pair, thresholds) if together else [model.explain(*pair, t) for t in thresholds]
        sum(weight * middle.frame.square().sum() for weight, middle in enumerate(middles, 1)).backward()
        gradients.append([parameter.grad for parameter in model.synthesis.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_each_sample_has_its_own_threshold():
    model = small()
    pair = [torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1)]
    with torch.no_grad():
        both = model(*pair, torch.tensor([0.0, 5.0]))
        assert_near(both[:1], model(*(frames[:1] for frames in pair), 0.0), 1e-12)
        assert_near(both[1:], model(*(frames[1:] for frames in pair), 5.0), 1e-12)


def test_the_paper_s_count_is_the_published_counter_s_without_its_faults():
    # It gives 89.87 G, of which 10.63, 26.34 and 32.62 for the levels, and 20.29 G where all masks are empty. In these
    # are 0.75 G of transposed convolutions counted four times, and 0.08 G of activations and biases.
    with torch.device("meta"):
        model, frames = WaveletVFI(), torch.zeros(1, 3, 256, 448)
    assert model.paper_macs(frames, [1, 1, 1]) == pytest.approx((89.87 - 0.75 - 0.08) * 1e9, rel=1e-4)
    empty = model.paper_macs(frames, [0, 0, 0])
    assert empty == pytest.approx((20.29 - 0.75 - 0.08) * 1e9, rel=1e-3)
    for level, published in enumerate([32.62e9, 26.34e9, 10.63e9]):
        shares = [float(level == index) for index in range(3)]
        assert model.paper_macs(frames, shares) - empty == pytest.approx(published, rel=1e-3)


def test_the_exact_count_is_that_of_torch_s_own_counter():
    model = small().float()
    before, after = (torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    exact = []
    for threshold in (0.0, 0.3, 5.0):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(before, after, threshold)
        count = model.count_macs(before, after, threshold)
        assert count.exact == counter.get_total_flops() // 2
        exact.append(count)
    assert exact[0].exact > exact[1].exact > exact[2].exact
    # The transposed convolution saves even where everything is wanted.
    assert exact[0].exact < exact[0].paper


@pytest.mark.parametrize("threshold", [-1, float("nan"), "0", True, torch.zeros(3), torch.zeros(2, dtype=torch.int64)])
def test_thresholds_that_are_none_are_refused(threshold):
    pair = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)]
    with pytest.raises((TypeError, ValueError), match="threshold"):
        WaveletVFI(width=0.1)(*pair, threshold)


@pytest.mark.parametrize("options", [{"width": 0}, {"width": "1"}, {"thresholds": ()}, {"thresholds": (0.1, 0.0)}])
def test_impossible_numbers_are_refused(options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        WaveletVFI(**options)


def test_a_fresh_residual_network_gives_the_mean_of_both_frames():
    before, after = pictures()
    with torch.no_grad():
        frame = WaveletVFI(width=0.1, residual=True).double()(before, after)
    torch.testing.assert_close(frame, (before + after) / 2)


def trained_residual():
    """As if trained: heads that are no longer zero."""
    torch.manual_seed(1)
    model = WaveletVFI(width=0.1, residual=True)
    with torch.no_grad():
        for head in (
            *(decoder.head for decoder in model.motion.decoders),
            *(level.to_outputs for level in levels(model)),
        ):
            head.weight.normal_(std=0.02)
        for head in (model.synthesis.to_low, model.synthesis.to_high):
            head.weight.normal_(std=0.02)
    return model


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.1, 5.0])
def test_a_residual_network_keeps_the_mixed_frame_s_details_where_none_are_wanted(threshold):
    model, (before, after) = trained_residual().double(), pictures()
    with torch.no_grad():
        middle = model.explain(before, after, threshold)
        mixed = merge(before, after, middle.motion)
        shared = model.explain_each(before, after, [threshold])[0]
    assert_near(shared.synthesis.frame, middle.synthesis.frame, 1e-9)
    low = mixed
    for mask, found in zip(middle.synthesis.masks, middle.synthesis.bands.high[:-1], strict=True):
        low, details = haar_dwt(low)
        outside = (mask == 0)[:, :, None].expand_as(details)
        assert torch.equal(found[outside], details[outside])
        assert torch.equal(mask, mask.round())
    fine, coarse = middle.synthesis.masks[0], middle.synthesis.masks[1]
    assert (fine <= F.interpolate(coarse, scale_factor=2, mode="nearest")).all()


class TestWaveletVFI(InterpolatorContract):
    def make(self):
        return WaveletVFI(width=0.1)

    def loss(self, model, before, after):
        middle = model.explain(before, after, 0.0)
        # The classifier's choice has no gradient; its logits have.
        return middle.synthesis.frame.square().sum() + middle.motion.logits.square().sum()

    def smooth(self, model, before, after):
        return model(before, after, 0.0)


class TestWithOneThreshold(InterpolatorContract):
    backend = None

    def make(self):
        return WaveletVFI(width=0.1, thresholds=(0.1,))

    def loss(self, model, before, after):
        middle = model.explain(before, after, 0.0)
        return middle.synthesis.frame.square().sum() + middle.motion.logits.square().sum()

    def smooth(self, model, before, after):
        return model(before, after, 0.0)


class TestResidual(TestWithOneThreshold):
    def make(self):
        return trained_residual()
