# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's two stages: the published loss, what is drawn and annealed, and a run that resumes."""

from __future__ import annotations

import pytest
import torch
from golden import fill_golden
from torch import nn

from pcvideo.data import MovingPhotographs, TensorClips
from pcvideo.models import WaveletVFI
from pcvideo.training import DynamicInterpolation, MotionInterpolation, StaticInterpolation, Trainer


def wave(phase):
    return (0.5 + 0.5 * torch.sin(0.05 * torch.arange(3 * 64 * 96, dtype=torch.float64) + phase)).view(1, 3, 64, 96)


def triplets(batch=2, size=32, seed=0):
    clip = torch.rand(batch, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    large = nn.functional.interpolate(clip, size=(size + 8, size + 8), mode="bicubic").clamp(0, 1)
    return torch.stack([large[..., 4 * s : 4 * s + size, 4 * s : 4 * s + size] for s in range(3)], dim=1)


def model(seed=0, width=0.1):
    torch.manual_seed(seed)
    return WaveletVFI(width=width)


def test_the_static_loss_is_the_published_one():
    strategy = StaticInterpolation().attach(fill_golden(WaveletVFI().double()))
    batch = torch.stack((wave(0.2), wave(0.55), wave(0.9)), dim=1)
    with torch.no_grad():
        loss, logs = strategy(batch)
    assert logs["reconstruction"].item() == pytest.approx(0.8619735287, rel=1e-6)
    assert 0.01 * logs["wavelet"].item() == pytest.approx(0.0827416531, rel=1e-6)
    # The published total has three times the reconstruction more, for the cost, with no gradient.
    assert 3 * logs["reconstruction"].item() == pytest.approx(2.5859205861, rel=1e-6)
    assert loss.item() == pytest.approx(0.8619735287 + 0.0827416531, rel=1e-6)


def test_the_dynamic_loss_is_the_sum_over_thresholds_by_their_drawn_shares():
    network, batch = model().double(), triplets().double()
    strategy = DynamicInterpolation(steps=10).attach(network)
    torch.manual_seed(5)
    loss, logs = strategy(batch)
    torch.manual_seed(5)
    before, truth, after = batch.unbind(1)
    middles = [network.explain(before, after, threshold) for threshold in network.thresholds]
    noise = -torch.empty(2, 4, dtype=torch.float32).exponential_().log()
    shares = (middles[0].motion.logits.float() + noise).softmax(1)
    terms = [strategy._terms(middle, truth) for middle in middles]
    expected = torch.zeros(2, dtype=torch.float64)
    for share, middle, (reconstruction, wavelet) in zip(shares.unbind(1), middles, terms, strict=True):
        cost = middle.synthesis.cost
        expected = expected + share * (reconstruction + 0.01 * wavelet + 3 * reconstruction.detach() * cost)
    torch.testing.assert_close(loss, expected.mean(), rtol=1e-5, atol=1e-6)
    assert 0 <= logs["cost"] <= 1


def test_the_temperature_falls_to_its_lowest_by_the_step_alone():
    strategy = DynamicInterpolation(steps=100)
    found = []
    for step in (0, 10, 25, 30, 99):
        strategy.begin(step)
        found.append(strategy.temperature)
    assert found == pytest.approx([1, 0.8, 0.5, 0.4, 0.4])
    constant = DynamicInterpolation(steps=100, lowest_temperature=1)
    constant.begin(99)
    assert constant.temperature == 1


def test_straight_through_computes_with_one_threshold_and_trains_all_logits():
    network, batch = model(), triplets()
    strategy = DynamicInterpolation(steps=10, straight_through=True).attach(network)
    loss, _ = strategy(batch)
    loss.backward()
    assert network.motion.classifier.logits.weight.grad.abs().amax(1).min() > 0


@pytest.mark.parametrize("strategy", [StaticInterpolation(), DynamicInterpolation(steps=10)], ids=["static", "dynamic"])
def test_every_parameter_has_a_gradient_and_a_step_lowers_the_loss(strategy):
    network, batch = model().double(), triplets().double()
    strategy.attach(network)

    def loss():
        torch.manual_seed(0)
        return strategy(batch)[0]

    before = loss()
    before.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    with torch.no_grad():
        steepness = sum(gradient.square().sum() for gradient in gradients)
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.sub_(1e-4 * before.detach() / steepness * gradient)
    assert loss() < before


def test_the_motion_stage_teaches_the_flows_alone():
    network, batch = model(), triplets()
    strategy = MotionInterpolation().attach(network)
    strategy.begin(0)
    loss, logs = strategy(batch)
    loss.backward()
    assert logs["flow"] == 0
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name.startswith("motion.") and "classifier" not in name), name
    StaticInterpolation().attach(network).begin(0)
    strategy.rest()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_known_flows_are_learnt_and_unknown_ones_change_nothing():
    torch.manual_seed(0)
    picture = nn.functional.interpolate(torch.rand(1, 3, 16, 16), size=(64, 64), mode="bicubic")[0].clamp(0, 1)
    clips = MovingPhotographs([picture], clips=4, size=(32, 32), speed=3, pieces=0, with_flows=True)
    batch = torch.stack([clips[index] for index in range(4)])
    network = WaveletVFI(width=0.1, residual=True)
    strategy = MotionInterpolation().attach(network)
    unknown = torch.cat((batch[:, :3], torch.zeros_like(batch[:, 3:])), dim=1)
    torch.testing.assert_close(strategy(unknown)[0], strategy(batch[:, :3])[0])
    optimizer = torch.optim.Adam(network.motion.parameters(), lr=3e-3)
    distances = []
    for step in range(40):
        strategy.begin(step)
        loss, logs = strategy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distances.append(logs["flow"].item())
    assert distances[-1] < 0.8 * distances[0]


def test_16_bit_autocast_gives_nearly_the_same_loss():
    strategy, batch = StaticInterpolation().attach(model()), triplets()
    with torch.no_grad():
        wide, _ = strategy(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow, _ = strategy(batch)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, wide, rtol=2e-2, atol=0)


def test_a_forecast_is_the_middle_frame_and_the_truth():
    strategy, batch = StaticInterpolation().attach(model()), triplets()
    prediction, truth = strategy.forecast(batch, strategy.model)
    assert prediction.shape == truth.shape == (2, 1, 3, 32, 32)
    assert torch.equal(truth[:, 0], batch[:, 1])


def test_clips_that_are_no_triplets_are_refused():
    strategy = StaticInterpolation().attach(model())
    with pytest.raises(ValueError, match="triplets"):
        strategy(torch.rand(1, 4, 3, 32, 32))
    with pytest.raises(ValueError, match="divisible by 16"):
        strategy(torch.rand(1, 3, 3, 30, 32))


def test_a_run_that_is_resumed_gives_the_losses_of_the_unbroken_one(tmp_path):
    clips = TensorClips(triplets(4))

    def trainer(folder, steps):
        return Trainer(
            model(),
            DynamicInterpolation(steps=4),
            run_dir=tmp_path / folder,
            steps=steps,
            batch_size=2,
            lr=1e-3,
            schedule="constant",
            device="cpu",
            checkpoint_every=2,
        )

    whole = trainer("whole", 4)
    whole.fit(clips, clips)
    assert whole.metrics["psnr"] > 0
    assert whole.metrics["copy_last/psnr"] < 60
    first = trainer("parts", 2)
    first.fit(clips)
    second = trainer("parts", 4)
    second.fit(clips, clips, resume="auto")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name
    loaded = WaveletVFI.from_pretrained(tmp_path / "whole" / "best")
    assert loaded.config == whole.model.config
