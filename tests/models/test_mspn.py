# SPDX-License-Identifier: Apache-2.0
"""MSPN: the contract for a small instance of every option, the published figures, and the golden numbers."""

from __future__ import annotations

import pytest
import torch
from golden import fill_golden, golden_input
from model_contract import PredictorContract

from pcvideo import MSPN
from pcvideo.rollout import feed_context, rollout

TINY = {"in_channels": 3, "levels": 2, "channels": (4, 6, 8), "hidden_channels": 3}


class MSPNContract(PredictorContract):
    multiple = 4
    backend = "eager"

    def __init_subclass__(cls, **options):
        super().__init_subclass__()
        cls.options = TINY | options

    def make(self):
        return MSPN(**self.options)


class TestPublished(MSPNContract):
    backend = "aot_eager"


class TestBatchNorm(MSPNContract, norm="batch"):
    pass


class TestEncoderLSTMDecoder(MSPNContract, cell="encoder_lstm_decoder"):
    pass


class TestNoLatentSharing(MSPNContract, latent_sharing=False):
    backend = None


class TestModulateFusion(MSPNContract, fusion="modulate"):
    pass


class TestAddFusion(MSPNContract, fusion="add"):
    backend = None


class TestAverageResampling(MSPNContract, resample="average"):
    backend = None


class TestBinomialResampling(MSPNContract, resample="binomial", in_channels=1):
    channels = 1


class TestFIRResampling(MSPNContract, resample="fir"):
    pass


class TestCornersNotAligned(MSPNContract, align_corners=False):
    backend = None


class TestPatches(MSPNContract, patch=2):
    multiple = 8


class TestResidual(MSPNContract, residual=True):
    pass


class TestClamped(MSPNContract, clamp=True):
    backend = None


class TestOneLevel(MSPNContract, levels=1, channels=(4, 6)):
    multiple = 2

    @pytest.mark.slow
    def test_step_compiled_to_machine_code_gives_the_same(self):
        self._compiled("inductor", 1e-10)


class TestThreeLevels(MSPNContract, levels=3, channels=(3, 4, 5, 6)):
    multiple = 8
    backend = None


# Golden numbers: made once with the authors' network in float64, by the rule in golden.py.

SMALL = {"in_channels": 3, "levels": 2, "channels": (8, 16, 32), "hidden_channels": 4}
GOLDEN = {
    "ed_lstm": {
        "published": 101_528,
        "never_used": 2 * (1 + 1_160),
        "train_loss": 3556.36865305,
        "first": (0.0738184809, 0.0282421921, 0.0449978230, 0.0990659637),
        "third": (0.0738613602, 0.0284529655),
    },
    "encoder_lstm_decoder": {
        "published": 199_472,
        "never_used": 2 * (1 + 1_160) + (32 + 16) * 32 * 9,
        "train_loss": 3543.54192176,
        "first": (0.0766541585, 0.0352161873, 0.0436572931, 0.0311256801),
        "third": (0.0770218503, 0.0312711268),
    },
}


def golden_model(cell):
    return fill_golden(MSPN(**SMALL, cell=cell).double())


def mean_and_std(frame):
    return frame.mean().item(), frame.std(unbiased=False).item()


@pytest.mark.parametrize("cell", GOLDEN)
def test_three_frames_predicted_from_five_are_the_golden_ones(cell):
    future = golden_model(cell)(golden_input(2, 5, 3, 16, 24), 3)
    first = future[:, 0]
    found = (*mean_and_std(first), first.flatten()[0].item(), first.flatten()[-1].item())
    assert found == pytest.approx(GOLDEN[cell]["first"], rel=1e-6)
    assert mean_and_std(future[:, 2]) == pytest.approx(GOLDEN[cell]["third"], rel=1e-6)


@pytest.mark.parametrize("cell", GOLDEN)
def test_the_loss_with_two_steps_fed_by_predictions_is_the_golden_one(cell):
    model, frames = golden_model(cell), golden_input(2, 5, 3, 16, 24)
    pyramids = rollout(model, frames[:, :4], feed=feed_context(3)).pyramids
    loss = sum(
        ((prediction - target) ** 2).sum().item()
        for time, pyramid in enumerate(pyramids)
        for prediction, target in zip(pyramid, model.targets(frames[:, time + 1]), strict=True)
    )
    assert loss == pytest.approx(GOLDEN[cell]["train_loss"], rel=1e-6)


@pytest.mark.parametrize("cell", GOLDEN)
def test_the_golden_networks_have_the_published_parameters_but_for_those_never_used(cell):
    row = GOLDEN[cell]
    assert count(MSPN(**SMALL, cell=cell)) == row["published"] - row["never_used"]


# Published sizes, counted without memory. What the authors' code creates and no forward pass uses: one scalar in each
# cell, the last skip convolution of each U-Net (2c -> c, 3x3), and, in the ablation cell, the latent's convolution.

BIG = {"in_channels": 3, "levels": 4, "channels": (64, 128, 256, 512, 1024), "hidden_channels": 64}
MNIST = {"in_channels": 1, "levels": 3, "channels": (64, 128, 256, 512), "hidden_channels": 32}
NEVER_USED = 1 + 2 * 64 * 64 * 9 + 64


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**config):
    with torch.device("meta"):
        return MSPN(**config)


def merge_latent(own, coarser):
    return (own + coarser) * own * 9


def test_the_published_networks_have_the_published_number_of_parameters():
    assert count(on_meta(**BIG)) == 111_135_312 - 4 * NEVER_USED == 110_840_140
    assert count(on_meta(**MNIST)) == 26_952_422 - 3 * NEVER_USED == 26_731_043


def test_batch_normalisation_adds_the_published_parameters_and_buffers():
    for config, published, never_used, buffered in (
        (BIG, 111_195_216, 4 * NEVER_USED, 60_024),
        (MNIST, 26_977_766, 3 * NEVER_USED, 25_416),
    ):
        model = on_meta(**config, norm="batch")
        assert count(model) == published - never_used
        assert sum(buffer.numel() for buffer in model.buffers()) == buffered


def test_without_latent_sharing_the_latent_convolutions_are_gone():
    model = on_meta(**MNIST, latent_sharing=False)
    assert count(model) == 22_528_742 - 3 * NEVER_USED
    assert count(on_meta(**MNIST)) - count(model) == merge_latent(512, 256) + merge_latent(256, 128)


def test_the_ablation_network_has_the_published_number_of_parameters():
    latents = merge_latent(1024, 512) + merge_latent(512, 256) + merge_latent(256, 128)
    assert 4 * NEVER_USED + latents == 18_874_628
    big = on_meta(**BIG, cell="encoder_lstm_decoder")
    assert count(big) == 222_353_104 - 18_874_628
    cells = (
        168_067_396 - merge_latent(1024, 512),
        41_842_372 - merge_latent(512, 256),
        10_280_644 - merge_latent(256, 128),
        2_162_692,
    )
    assert tuple(count(cell) for cell in big.cells) == tuple(cell - NEVER_USED for cell in cells)
    mnist = on_meta(**MNIST, cell="encoder_lstm_decoder")
    assert count(mnist) == 54_230_790 - 4_645_059
    cells = (41_820_866 - merge_latent(512, 256), 10_262_338 - merge_latent(256, 128), 2_147_586)
    assert tuple(count(cell) for cell in mnist.cells) == tuple(cell - NEVER_USED for cell in cells)


def test_each_part_of_the_published_network_has_its_published_size():
    big = on_meta(**BIG)
    cells = (83_526_532, 21_005_060, 5_369_860, 1_233_860)
    assert tuple(count(cell) for cell in big.cells) == tuple(cell - NEVER_USED for cell in cells)
    codec = big.cells[0].codec
    assert count(codec.stem) == 116_864
    assert [count(stage) for stage in codec.encoders] == [541_440, 2_164_224, 8_653_824, 34_609_152]
    assert [count(stage) for stage in codec.decoders] == [12_585_984, 3_147_264, 787_200, 196_992]
    assert [count(merge) for merge in codec.merge_skips] == [4_719_104, 1_179_904, 295_040]
    assert count(codec.head) == 295_168
    assert count(big.cells[0].to_image) == 4_803
    assert [count(cell.codec.stem) for cell in big.cells[1:]] == [126_464, 126_464, 121_664]
    assert [count(cell.codec.merge_latent) for cell in big.cells[:3]] == [14_155_776, 3_538_944, 884_736]
    assert big.cells[3].codec.merge_latent is None

    mnist = on_meta(**MNIST)
    cells = (20_783_074, 5_151_074, 1_018_274)
    assert tuple(count(cell) for cell in mnist.cells) == tuple(cell - NEVER_USED for cell in cells)
    assert [count(cell.codec.stem) for cell in mnist.cells] == [56_064, 59_264, 57_664]
    assert [count(cell.codec.head) for cell in mnist.cells] == [147_584] * 3
    assert [count(cell.to_image) for cell in mnist.cells] == [801] * 3


def test_the_state_dict_has_the_published_tensors_but_for_those_never_used():
    # 179 in the authors' checkpoint; a scalar, a weight and a bias less in each of three cells.
    state = on_meta(**MNIST).state_dict()
    assert len(state) == 179 - 3 * 3
    assert sum(tensor.numel() for tensor in state.values()) == 26_731_043


# The constructor


def test_clamping_changes_what_is_returned_and_not_what_is_fed_back():
    plain, clamped = golden_model("ed_lstm"), fill_golden(MSPN(**SMALL, clamp=True).double())
    with torch.no_grad():
        for model in (plain, clamped):
            for cell in model.cells:
                cell.to_image.weight.mul_(40)
    frames = golden_input(1, 3, 3, 16, 24)
    free = plain(frames, 3)
    assert free.min() < 0
    assert free.max() > 1
    torch.testing.assert_close(clamped(frames, 3), free.clamp(0, 1))


def test_concatenation_is_the_fusion_where_nothing_is_said():
    default, concat = MSPN(**TINY).state_dict(), MSPN(**TINY, fusion="concat").state_dict()
    assert {name: tensor.shape for name, tensor in default.items()} == {name: t.shape for name, t in concat.items()}
    assert default["cells.0.codec.merge_latent.weight"].shape == (8, 8 + 6, 3, 3)
    assert default["cells.0.codec.merge_skips.0.weight"].shape == (6, 2 * 6, 3, 3)
    assert default["cells.0.codec.head.weight"].shape == (4 * 3, 2 * 4, 3, 3)


def added(width, out, other=None):
    """Parameters of an addition: a 3x3 convolution with bias; for a latent 3x3 and 1x1, neither with one."""
    return width * out * 9 + out if other is None else width * out * 9 + other * width


def modulated(width, out, other=None):
    """Parameters of a modulation: two 3x3 convolutions with biases, and the gain."""
    return (other or width) * 2 * width * 9 + 2 * width + 1 + width * out * 9 + out


@pytest.mark.parametrize(("fusion", "cost"), [("add", added), ("modulate", modulated)])
def test_another_fusion_takes_the_place_of_each_concatenation(fusion, cost):
    concat, other = MSPN(**TINY), MSPN(**TINY, fusion=fusion)
    gates = 4 * TINY["hidden_channels"]
    # In turn: the latent of level 0, the skips of its middle stage, the heads of both levels.
    before = (8 + 6) * 8 * 9 + (12 * 6 * 9 + 6) + 2 * (8 * gates * 9 + gates)
    after = cost(8, 8, 6) + cost(6, 6) + 2 * cost(4, gates)
    assert count(other) - count(concat) == after - before


@pytest.mark.parametrize("fusion", ["concat", "modulate", "add"])
@pytest.mark.parametrize("cell", ["ed_lstm", "encoder_lstm_decoder"])
def test_a_fresh_residual_network_predicts_nearly_the_last_frame_with_every_fusion(cell, fusion):
    torch.manual_seed(0)
    options = TINY | {"cell": cell, "fusion": fusion}
    model, plain = MSPN(**options, residual=True).eval(), MSPN(**options).eval()
    frames = golden_input(2, 3, 3, 16, 24).float()
    assert (model(frames, 1)[:, 0] - frames[:, -1]).abs().max() < 0.01
    assert (plain(frames, 1)[:, 0] - frames[:, -1]).abs().max() > 0.1


def test_only_the_last_convolution_of_a_modulated_image_head_begins_small():
    torch.manual_seed(0)
    model = MSPN(**TINY, cell="encoder_lstm_decoder", fusion="modulate", residual=True)
    for cell in model.cells:
        head, bound = cell.codec.head, (4 * 9) ** -0.5  # PyTorch's for 4 channels and 3x3
        assert head.gain == 1
        assert head.to_scale_shift.weight.abs().max() > 0.9 * bound
        assert head.to_scale_shift.bias.abs().max() > 0.5 * bound
        assert 0.009 * bound < head.conv.weight.abs().max() <= 0.01 * bound


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"channels": (4, 6)}, ValueError, "channels must hold at least levels \\+ 1 = 3 widths"),
        ({"channels": 4}, TypeError, "channels must be a sequence"),
        ({"channels": "468"}, TypeError, "channels must be a sequence"),
        ({"channels": (4, 6.0, 8)}, TypeError, "channels\\[1\\] must be a whole number"),
        ({"channels": (4, 6, 0)}, ValueError, "channels\\[2\\] must be a whole number of at least 1"),
        ({"in_channels": 0}, ValueError, "in_channels"),
        ({"levels": True}, TypeError, "levels"),
        ({"hidden_channels": -3}, ValueError, "hidden_channels"),
        ({"patch": 1.5}, TypeError, "patch"),
        ({"norm": "bach"}, ValueError, "norm must be one of None, 'batch', got 'bach'; did you mean 'batch'"),
        ({"cell": "edlstm"}, ValueError, "did you mean 'ed_lstm'"),
        ({"fusion": "modulated"}, ValueError, "did you mean 'modulate'"),
        ({"fusion": None}, ValueError, "fusion must be one of 'concat', 'modulate', 'add', got None"),
        ({"resample": "averge"}, ValueError, "did you mean 'average'"),
        ({"latent_sharing": "no"}, TypeError, "latent_sharing must be True or False, got str 'no'"),
        ({"align_corners": 1}, TypeError, "align_corners must be True or False"),
        ({"residual": "yes"}, TypeError, "residual must be True or False"),
        ({"clamp": None}, TypeError, "clamp must be True or False"),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else "{}={!r}".format(*next(iter(value.items()))),
)
def test_a_wrong_argument_is_refused_by_its_name(wrong, error, words):
    with pytest.raises(error, match=words):
        MSPN(**(TINY | wrong))
