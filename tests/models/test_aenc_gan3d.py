# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from golden import fill_golden
from torch import Tensor, nn
from volume_contract import VolumeContract

from pcvideo.layers import VolumeCritic, VolumeEncoder, VolumeGenerator
from pcvideo.models import AEncGAN3D
from pcvideo.rollout import rollout

SMALL = {"size": (4, 8, 8), "width": 8, "code_channels": 6, "dropout": 0.0}


class _FixedSize(VolumeContract):
    size = (4, 8, 8)

    @pytest.mark.skip(reason="its volumes have one size")
    def test_predict_takes_any_size_and_equals_forward_on_repeated_edges(self) -> None: ...

    def test_smaller_volumes_are_padded_and_larger_ones_refused_with_the_size_to_build(self) -> None:
        model = self.model(torch.float32)
        frames = self.frames(1, 4).float()
        future = model.predict(frames[..., :3, :, :7], 2)
        edges = torch.cat([frames[..., :3, :, :7], frames[..., 2:3, :, :7]], dim=-3)
        edges = torch.cat([edges, edges[..., 6:7]], dim=-1)
        torch.testing.assert_close(future, model(edges, 2)[..., :3, :, :7].clamp(0, 1))
        for door in (model, model.predict):
            with pytest.raises(ValueError, match=r"must be 4x8x8, the size .*size=\(8, 8, 8\)"):
                door(torch.zeros(1, 3, 1, 8, 8, 8), 1)


class TestOneFrame(_FixedSize):
    def make(self) -> AEncGAN3D:
        return AEncGAN3D(**SMALL)

    def test_gradients_flow_back_through_frames_that_were_fed_back(self) -> None:
        # It sees the newest frame alone.
        model, frames = self.model(), self.frames().requires_grad_()
        model(frames, 3)[:, 2].square().sum().backward()
        assert frames.grad is not None
        reached = frames.grad.abs().transpose(0, 1).flatten(1).amax(1) > 0
        assert reached.tolist() == [False, False, True]


class TestThreeFrames(_FixedSize):
    backend = "eager"
    graphs = 4
    enough = 6

    def make(self) -> AEncGAN3D:
        return AEncGAN3D(context=3, architecture="classic", **SMALL)


def volumes(phase: float) -> Tensor:
    return (0.5 + 0.5 * torch.sin(0.05 * torch.arange(2 * 16**3, dtype=torch.float64) + phase)).view(2, 1, 16, 16, 16)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("preres", [0.0009800718, 0.0875529125, 0.1136095077, 0.0110809878]),
        ("classic", [0.0008905704, 0.0803723559, 0.0956592411, -0.0085550845]),
    ],
)
def test_the_published_encoders_give_their_golden_numbers(architecture: str, expected: list[float]) -> None:
    encoder = fill_golden(VolumeEncoder(1, 256, architecture=architecture).double()).eval()
    with torch.no_grad():
        codes = encoder(volumes(0.2))
    found = [codes.mean(), codes.std(correction=0), codes[0, 0], codes[-1, -1]]
    assert [value.item() for value in found] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("preres", [0.1239448041, 0.1192982048]), ("classic", [0.0536855124, 0.0784994215])],
)
def test_the_published_critics_give_their_golden_numbers(architecture: str, expected: list[float]) -> None:
    critic = fill_golden(VolumeCritic(2, architecture=architecture).double()).eval()
    with torch.no_grad():
        assert critic(torch.cat([volumes(0.2), volumes(1.0)], dim=1)).tolist() == pytest.approx(expected, abs=1e-6)


def count(network: nn.Module) -> tuple[int, int]:
    """All numbers as Keras counts them, statistics too, and those that are trained."""
    trained = sum(parameter.numel() for parameter in network.parameters())
    return trained + sum(buffer.numel() for buffer in network.buffers() if buffer.ndim), trained


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        assert count(VolumeEncoder(1, 256, architecture="preres")) == (9_620_416, 9_619_456)
        assert count(VolumeEncoder(1, 256, architecture="classic")) == (9_323_776, 9_323_392)
        assert count(VolumeGenerator(256, 1, architecture="preres")) == (9_636_065, 9_635_105)
        assert count(VolumeGenerator(768, 1, architecture="preres"))[0] == 18_024_673
        assert count(VolumeGenerator(256, 1, architecture="classic")) == (17_533_953, 17_532_545)
        assert count(VolumeGenerator(768, 1, architecture="classic"))[0] == 25_922_561
        for architecture, two, four in (("preres", 5_445_281, 5_453_281), ("classic", 5_153_217, 5_169_217)):
            assert count(VolumeCritic(2, architecture=architecture)) == (two, two)
            assert count(VolumeCritic(4, architecture=architecture)) == (four, four)


def test_until_three_frames_have_come_the_newest_is_the_prediction() -> None:
    model = AEncGAN3D(context=3, **SMALL).eval()
    frames = torch.rand(2, 4, 1, 4, 8, 8)
    with torch.no_grad():
        first, second, third, _ = (pyramid[0] for pyramid in rollout(model, frames).pyramids)
        codes = torch.cat([model.encoder(frame) for frame in frames[:, :3].unbind(1)], dim=1)
        expected = torch.sigmoid(model.generator(codes))
    assert torch.equal(first, frames[:, 0])
    assert torch.equal(second, frames[:, 1])
    torch.testing.assert_close(third, expected)


def test_each_volume_is_encoded_once() -> None:
    model, seen = AEncGAN3D(context=3, **SMALL).eval(), []
    model.encoder.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model(torch.rand(1, 5, 1, 4, 8, 8), 4)
    assert len(seen) == 5 + 4 - 1


def test_noise_gives_several_futures_and_predictions_take_none() -> None:
    torch.manual_seed(0)
    model = AEncGAN3D(noise_channels=4, **SMALL).eval()
    frames = torch.rand(1, 2, 1, 4, 8, 8)
    one, same, other = (model.sample(frames, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert (one - other).abs().max() > 1e-4
    assert torch.equal(model.predict(frames, 2), model.predict(frames, 2))
    plain = AEncGAN3D(**SMALL).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain.sample(frames, 3), plain(frames, 3))


def test_a_critic_is_made_for_what_it_is_shown() -> None:
    for context, condition, channels in ((1, "input", 2), (3, "input", 4), (3, "target", 2)):
        critic = AEncGAN3D(context=context, condition=condition, **SMALL).make_critic()
        assert critic(torch.rand(2, channels, 4, 8, 8)).shape == (2,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (4, 6, 8)}, "divisible by 4"),
        ({"size": 16}, "size must be"),
        ({"context": 0}, "context"),
        ({"architecture": "resnet"}, "architecture"),
        ({"condition": "frame"}, "condition"),
        ({"width": 12}, "width must be divisible by 8"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        AEncGAN3D(**{**SMALL, **options})
