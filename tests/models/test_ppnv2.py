# SPDX-License-Identifier: Apache-2.0
"""PPNV2: the contract for a small instance of every option, the published figures, and the golden numbers."""

from __future__ import annotations

import math

import pytest
import torch
from golden import fill_golden, golden_input
from model_contract import PredictorContract

from pcvideo import PPNV2
from pcvideo.losses import EncodingLoss, PPNV2Loss
from pcvideo.rollout import feed_context, rollout, unroll
from pcvideo.training import SelfFeeding


class PPNV2Contract(PredictorContract):
    multiple = 2
    backend = None
    graphs = 4

    def __init_subclass__(cls, **options):
        super().__init_subclass__()
        cls.options = {"channels": (3, 5)} | options

    def make(self):
        return PPNV2(**self.options)


class TestDefault(PPNV2Contract):
    backend = "aot_eager"


class TestLegacy(PPNV2Contract, legacy=True):
    backend = "eager"


class TestConcatMerge(PPNV2Contract, merge="concat"):
    pass


class TestAddMerge(PPNV2Contract, merge="add"):
    pass


class TestRadialFilters(PPNV2Contract, fir="radial", interpolation="sinc", window="hamming", taps=7):
    backend = "eager"


class TestWiderHidden(PPNV2Contract, hidden_channels=(6, 4)):
    pass


class TestResidual(PPNV2Contract, residual=True, clamp=True):
    backend = "eager"


class TestResidualConcatMerge(PPNV2Contract, residual=True, merge="concat"):
    pass


class TestPatches(PPNV2Contract, patch=2, residual=True):
    multiple = 4
    backend = "eager"


class TestOneLevel(PPNV2Contract, channels=(3,), residual=True):
    multiple = 1
    graphs = 3


class TestThreeLevels(PPNV2Contract, channels=(3, 4, 5)):
    enough = 5
    multiple = 4
    graphs = 5


# Golden numbers: made once with the authors' network in float64, by the rule in golden.py.

SMALL = {"channels": (3, 8, 12, 16), "legacy": True}
# Of the top level's merge, which no step uses, and of the factor that the lowest level has and doesn't use.
NEVER_USED = {"modulate": 6_961 + 1, "concat": 6_960 + 1, "add": 6_960 + 1}
GOLDEN = {
    "modulate": {
        "published": 133_564,
        "train_loss": 6138.15665986,
        "first": (0.0797554808, 0.0344597727, 0.0438474958, 0.0818230064),
        "third": (0.0796942583, 0.0283748576),
    },
    "add": {
        "published": 133_556,
        "train_loss": 5923.64517337,
        "first": (0.1010876447, 0.0904006355, 0.0090062761, 0.1170213622),
        "third": (0.1477630118, 0.1665563193),
    },
}


def golden_model(merge):
    return fill_golden(PPNV2(**SMALL, merge=merge).double())


def mean_and_std(frame):
    return frame.mean().item(), frame.std(unbiased=False).item()


@pytest.mark.parametrize("merge", GOLDEN)
def test_three_frames_predicted_from_seven_are_the_golden_ones(merge):
    future = golden_model(merge)(golden_input(1, 7, 3, 32, 40), 3)
    first = future[:, 0]
    found = (*mean_and_std(first), first.flatten()[0].item(), first.flatten()[-1].item())
    assert found == pytest.approx(GOLDEN[merge]["first"], rel=1e-6)
    assert mean_and_std(future[:, 2]) == pytest.approx(GOLDEN[merge]["third"], rel=1e-6)


@pytest.mark.parametrize("merge", GOLDEN)
def test_the_loss_with_two_steps_fed_by_predictions_is_the_golden_one(merge):
    model, frames, real = golden_model(merge), golden_input(1, 7, 3, 32, 40), 4
    total = 0.0
    for time, (pyramid, state) in enumerate(unroll(model, frames[:, :-1], feed=feed_context(real))):
        of_step = 0.2 if time == 0 else 1.0
        # What was predicted, and what it stands for.
        for level, (prediction, target) in enumerate(zip(pyramid, model.targets(frames[:, time + 1]), strict=False)):
            share = 1 if level == 0 else 1 / model.levels
            total += of_step * share * (prediction - target).square().sum().item()
        # The features of a prediction that was fed back, and of the true frame.
        fed_back = zip(model.seen(state), model.targets(frames[:, time]), strict=True) if time >= real else ()
        for encoded, target in list(fed_back)[1:]:
            total += of_step / model.levels * (encoded - target).square().sum().item()
    assert total == pytest.approx(GOLDEN[merge]["train_loss"], rel=1e-6)


@pytest.mark.parametrize("merge", GOLDEN)
def test_the_strategy_trains_on_the_golden_loss(merge):
    strategy = SelfFeeding(context=4, horizon=3, loss=PPNV2Loss(perceptual=False), encoding_loss=EncodingLoss())
    loss, logs = strategy.attach(golden_model(merge))(golden_input(1, 7, 3, 32, 40))
    assert loss.item() == pytest.approx(GOLDEN[merge]["train_loss"], rel=1e-6)
    assert sum(logs.values()).item() == pytest.approx(loss.item(), rel=1e-12)


def test_going_up_a_level_gives_the_golden_numbers():
    step = fill_golden(PPNV2(channels=(3, 8), legacy=True).double()).up_inputs[0]
    image = step(golden_input(1, 3, 16, 20))
    assert image.shape == (1, 8, 8, 10)
    found = (*mean_and_std(image), image.flatten()[0].item(), image.flatten()[-1].item())
    assert found == pytest.approx((0.0456547568, 0.0564962133, 0.1054529119, -0.0002304773), rel=1e-6, abs=1e-10)


# Published sizes, counted without memory.

BIG = {"channels": (3, 64, 128, 256, 512, 512), "legacy": True}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**config):
    with torch.device("meta"):
        return PPNV2(**config)


@pytest.mark.parametrize("merge", GOLDEN)
def test_the_golden_networks_have_the_published_parameters_but_for_those_never_used(merge):
    assert count(PPNV2(**SMALL, merge=merge)) == GOLDEN[merge]["published"] - NEVER_USED[merge]


def test_the_published_networks_have_the_published_parameters_but_for_those_never_used():
    unused = {"modulate": 7_079_425, "concat": 4_719_104 + 2_359_808, "add": 3 * 2_359_808}
    published = {"modulate": 170_162_054, "concat": 170_159_092, "add": 170_162_042}
    for merge, parameters in published.items():
        assert count(on_meta(**BIG, merge=merge)) == parameters - unused[merge] - 1
    demo = on_meta(channels=(3, 64, 64, 256, 256, 512), legacy=True)
    assert count(demo) == 109_470_918 - 7_079_425 - 1


def test_each_part_of_the_published_network_has_its_published_size():
    model = on_meta(**BIG)
    for parts, sizes in (
        (model.cells, (1_428, 631_680, 2_524_928, 10_096_128, 40_377_344, 40_377_344)),
        (model.merge_inputs, (253, 110_785, 442_753, 1_770_241, 7_079_425, 7_079_425)),
        (model.merge_predictions, (253, 110_785, 442_753, 1_770_241, 7_079_425)),
        (model.merge_errors, (165, 73_792, 295_040, 1_179_904, 4_719_104, 4_719_104)),
        (model.up_inputs, (38_784, 221_568, 885_504, 3_540_480, 4_720_128)),
        (model.up_errors, (40_512, 295_296, 1_180_416, 4_720_128, 7_079_424)),
        (model.down_predictions, (41_859, 227_776, 897_920, 3_565_312, 4_745_216)),
    ):
        assert tuple(map(count, parts)) == sizes
    cutoffs = [parameter.numel() for name, parameter in model.named_parameters() if name.endswith("cutoff_logit")]
    assert sum(cutoffs) == 4_416


def test_the_state_dict_has_the_published_tensors_but_for_those_never_used():
    # 213 in the authors' checkpoint; the top level's merge has a factor, and a weight and a bias of two convolutions.
    assert len(on_meta(**BIG).state_dict()) == 213 - 5


def test_a_step_of_the_published_network_costs_what_was_published():
    model = on_meta(**BIG)
    multiplications = 0

    def counted(module, inputs, output):
        nonlocal multiplications
        multiplications += output.numel() * math.prod(module.weight.shape[1:])

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(counted)
    frame = torch.empty(1, 3, 128, 160, device="meta")
    state = model.init_state(frame)
    for _ in range(8):
        multiplications = 0
        _, state = model.step(frame, state)
    # The sheet's 27.88 GMAC hold the filters too, which are no layers here and take less than 1 % of it.
    assert multiplications == pytest.approx(27.88e9, rel=0.02)


# Levels


def test_levels_begin_one_after_another():
    model = PPNV2(channels=(3, 4, 4, 4))
    lengths = [len(pyramid) for pyramid in rollout(model, torch.rand(1, 6, 3, 16, 16)).pyramids]
    assert lengths == [1, 2, 3, 4, 4, 4]


def test_a_frames_features_are_computed_once():
    model = PPNV2(channels=(3, 4, 4))
    calls = []
    for go_up in model.up_inputs:
        go_up.register_forward_hook(lambda *_: calls.append(1))
    rollout(model, torch.rand(1, 5, 3, 8, 8))
    # Level 1 from the second step on, level 2 from the third.
    assert len(calls) == 4 + 3


def test_taps_are_computed_once_for_a_clip(monkeypatch):
    from pcvideo.layers import LearnableFIR

    calls, original = [], LearnableFIR.make_taps
    monkeypatch.setattr(LearnableFIR, "make_taps", lambda self: calls.append(1) or original(self))
    model = PPNV2(channels=(3, 4, 4))
    rollout(model, torch.rand(1, 5, 3, 8, 8), 4)
    assert len(calls) == 6


def test_the_first_step_needs_a_frame():
    model = PPNV2(channels=(3, 4))
    with pytest.raises(ValueError, match="first step needs a frame"):
        model.step(None, model.init_state(torch.rand(1, 3, 8, 8)))


# The corrections


@pytest.mark.parametrize("kind", ["inverse_distance", "sinc"])
def test_each_phase_of_the_interpolation_keeps_the_brightness(kind):
    kernel = PPNV2(channels=(3, 4), interpolation=kind).down_predictions[0].kernel[0]
    phases = [kernel[row::2, column::2].sum().item() for row in (0, 1) for column in (0, 1)]
    tolerance = 1e-6 if kind == "inverse_distance" else 0.02
    assert phases == pytest.approx([1] * 4, abs=tolerance)


def test_the_published_interpolation_darkens_one_phase_by_its_swapped_digits():
    kernel = PPNV2(channels=(3, 4), legacy=True).down_predictions[0].kernel[0].double()
    assert kernel[::2, ::2].sum().item() == pytest.approx(0.9892, abs=1e-6)
    assert kernel.sum().item() == pytest.approx(3.9892, abs=1e-6)
    mended = PPNV2(channels=(3, 4)).down_predictions[0].kernel[0].double()
    different = (kernel - mended).abs() > 1e-4
    assert different.nonzero().tolist() == [[0, 0], [0, 6], [6, 0], [6, 6]]
    assert mended[0, 0].item() == pytest.approx(0.0374, abs=5e-5)


def test_the_published_border_is_mirroring_about_inserted_zeros():
    step = PPNV2(channels=(3, 2), legacy=True).double().down_predictions[0]
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    spaced = torch.zeros(1, 2, 8, 10, dtype=torch.float64)
    features = spaced[:, :, ::2, ::2] = step.before(image)
    spaced = torch.nn.functional.pad(spaced, (3, 3, 3, 3), mode="reflect")
    expected = torch.nn.functional.conv2d(spaced, step.kernel[:, None], groups=2)
    expected = step.after(step.filter(torch.nn.functional.leaky_relu(expected, 0.01)))
    assert features.shape == image.shape
    torch.testing.assert_close(step(image), expected)


def test_every_correction_has_a_name_of_its_own():
    published = PPNV2(channels=(3, 4), legacy=True).config
    chosen = {"fir": "reshaped", "bound": "published", "interpolation": "published", "border": "reflect"}
    assert PPNV2(channels=(3, 4), **chosen).config == published | {"legacy": False}
    ours = {"fir": "separable", "bound": "max_cutoff", "interpolation": "inverse_distance", "border": "replicate"}
    assert PPNV2(channels=(3, 4), legacy=True, **ours).config == PPNV2(channels=(3, 4)).config | {"legacy": True}


def test_a_fresh_residual_network_predicts_nearly_the_last_frame():
    torch.manual_seed(0)
    frames = 0.2 + 0.6 * torch.rand(1, 4, 3, 16, 16)
    for merge in ("modulate", "concat", "add"):
        future = PPNV2(channels=(3, 8, 8), merge=merge, residual=True)(frames, 1)
        assert (future[:, 0] - frames[:, -1]).abs().max() < 0.02


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"channels": ()}, ValueError, "channels must hold at least one width"),
        ({"channels": 3}, TypeError, "channels must be a sequence"),
        ({"channels": (3, 4.0)}, TypeError, "channels\\[1\\] must be a whole number"),
        ({"hidden_channels": (3,)}, ValueError, "hidden_channels must hold one width for each of the 2 levels"),
        ({"merge": "modulated"}, ValueError, "did you mean 'modulate'"),
        ({"fir": "seperable"}, ValueError, "did you mean 'separable'"),
        ({"bound": "max"}, ValueError, "bound must be one of 'max_cutoff', 'published'"),
        ({"interpolation": "linear"}, ValueError, "interpolation must be one of"),
        ({"border": "zeros"}, ValueError, "border must be one of 'replicate', 'reflect'"),
        ({"taps": 8}, ValueError, "taps must be odd"),
        ({"window": "hann"}, ValueError, "window must be one of"),
        ({"patch": 0}, ValueError, "patch must be a whole number"),
        ({"legacy": 1}, TypeError, "legacy must be True or False"),
        ({"residual": None}, TypeError, "residual must be True or False"),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else "{}={!r}".format(*next(iter(value.items()))),
)
def test_a_wrong_argument_is_refused_by_its_name(wrong, error, words):
    with pytest.raises(error, match=words):
        PPNV2(**({"channels": (3, 4)} | wrong))
