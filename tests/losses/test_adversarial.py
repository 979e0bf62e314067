# SPDX-License-Identifier: Apache-2.0
"""The losses on scores against numpy, and the gradient penalty against closed forms and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from pcvideo.losses import HingeScoreLoss, LeastSquaresScoreLoss, ScoreLoss, WassersteinScoreLoss, gradient_penalty

REAL = np.array([1.7, -0.4, 0.9, 2.5, 0.1])
FAKE = np.array([-1.9, 0.3, -0.2, 1.1, -3.0])

CLOSED_FORMS: dict[type[ScoreLoss], tuple[float, float]] = {
    LeastSquaresScoreLoss: (np.mean((REAL - 1) ** 2) + np.mean((FAKE + 1) ** 2), np.mean((FAKE - 1) ** 2)),
    HingeScoreLoss: (np.mean(np.maximum(1 - REAL, 0)) + np.mean(np.maximum(1 + FAKE, 0)), -np.mean(FAKE)),
    WassersteinScoreLoss: (np.mean(FAKE) - np.mean(REAL), -np.mean(FAKE)),
}
KINDS = pytest.mark.parametrize("kind", CLOSED_FORMS)


@KINDS
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_each_loss_is_its_formula(kind: type[ScoreLoss], shape: tuple[int, ...]) -> None:
    real, fake = (torch.from_numpy(scores).view(shape) for scores in (REAL, FAKE))
    discriminator, generator = CLOSED_FORMS[kind]
    assert kind().discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-12)
    assert kind().generator(fake).item() == pytest.approx(generator, rel=1e-12)
    assert kind().generator(fake).shape == ()


@KINDS
def test_descending_each_loss_parts_the_scores_or_raises_the_generated_ones(kind: type[ScoreLoss]) -> None:
    # All within the hinge, where its slope is not 0.
    real, fake = torch.tensor([0.2, -0.3], requires_grad=True), torch.tensor([0.1, 0.4], requires_grad=True)
    slopes = torch.autograd.grad(kind().discriminator(real, fake), (real, fake))
    assert bool((slopes[0] < 0).all())
    assert bool((slopes[1] > 0).all())
    (slope,) = torch.autograd.grad(kind().generator(fake), fake)
    assert bool((slope < 0).all())


def test_the_least_squares_targets_are_plus_1_and_minus_1() -> None:
    loss, ones = LeastSquaresScoreLoss(), torch.ones(3)
    assert loss.discriminator(ones, -ones).item() == 0
    assert loss.generator(ones).item() == 0
    assert loss.discriminator(0 * ones, 0 * ones).item() == 2


def test_the_hinge_earns_nothing_beyond_1() -> None:
    real, fake = torch.tensor([1.5, 3.0], requires_grad=True), torch.tensor([-1.2, -9.0], requires_grad=True)
    loss = HingeScoreLoss().discriminator(real, fake)
    slopes = torch.autograd.grad(loss, (real, fake))
    assert loss.item() == 0
    assert not any(bool(slope.any()) for slope in slopes)


@KINDS
def test_16_bit_scores_are_compared_in_float32(kind: type[ScoreLoss]) -> None:
    scores = torch.full((3,), 300.0, dtype=torch.float16)
    assert kind().discriminator(scores, scores).dtype == torch.float32
    assert math.isfinite(kind().generator(scores).item())


# The gradient penalty.


def samples(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, *shape, generator=generator, dtype=dtype))  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(6,), (1, 4, 5), (1, 3, 4, 5)])
@pytest.mark.parametrize("length", [1.0, 0.25, 3.0])
def test_a_linear_critic_is_penalised_for_the_length_of_its_slope(shape: tuple[int, ...], length: float) -> None:
    weight = samples(*shape, seed=1)[0]
    weight = length * weight / weight.norm()
    real, fake = samples(4, *shape)
    penalty = gradient_penalty(lambda inputs: (inputs * weight).flatten(1).sum(1) + 7, real, fake)
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-10)


def test_the_slope_is_taken_between_each_sample_and_its_own_counterpart_evenly() -> None:
    # Sample n lies on axis n between 0 and n + 1; the slope of |v|**2 / 2 there is v itself.
    real = torch.zeros(4, 4, dtype=torch.float64)
    fake = torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64))
    seen: list[Tensor] = []

    def critic(inputs: Tensor) -> Tensor:
        seen.append(inputs.detach())
        return inputs.square().sum(1) / 2

    torch.manual_seed(0)
    penalties = [gradient_penalty(critic, real, fake, norm_eps=0).item() for _ in range(500)]
    places = torch.stack(seen)
    shares = torch.stack([places[:, n, n] / (n + 1) for n in range(4)], 1)
    assert bool((places * (1 - torch.eye(4)) == 0).all())
    assert 0 <= shares.min() < 0.01
    assert 0.99 < shares.max() < 1
    # Mean and variance of an even draw; the errors of 2000 draws are 0.0065 and 0.0017.
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / 12, abs=0.008)
    assert torch.corrcoef(shares.T).triu(1).abs().max() < 0.2
    expected = ((places.diagonal(dim1=1, dim2=2) - 1) ** 2).mean(1)
    np.testing.assert_allclose(penalties, expected.numpy(), rtol=1e-9)


def test_its_gradient_in_the_critics_weights_agrees_with_finite_differences() -> None:
    real, fake = samples(3, 2, 5, 5)

    def penalty(*weights: Tensor) -> Tensor:
        def critic(inputs: Tensor) -> Tensor:
            features = torch.nn.functional.softplus(torch.nn.functional.conv2d(inputs, weights[0], weights[1]))
            return torch.tanh(features.flatten(1) @ weights[2])

        torch.manual_seed(5)
        return gradient_penalty(critic, real, fake)

    generator = torch.Generator().manual_seed(2)
    weights = [
        torch.randn(shape, generator=generator, dtype=torch.float64).mul(0.3).requires_grad_()
        for shape in ((3, 2, 3, 3), (3,), (27,))
    ]
    assert gradcheck(penalty, weights)


def test_it_reaches_the_critic_alone_also_where_gradients_are_off() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    real, fake = (tensor.float().requires_grad_() for tensor in samples(3, 6))
    gradient_penalty(critic, real, fake).backward()
    assert real.grad is None
    assert fake.grad is None
    assert critic[1].weight.grad is not None
    assert bool(critic[1].weight.grad.any())
    with torch.no_grad():
        assert gradient_penalty(critic, real, fake).item() >= 0


def test_a_flat_critic_has_a_finite_gradient_unless_nothing_is_added_under_the_root() -> None:
    real, fake = samples(3, 4)
    for norm_eps, is_finite in ((1e-12, True), (0.0, False)):
        weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        penalty = gradient_penalty(lambda inputs, weight=weight: inputs @ weight, real, fake, norm_eps=norm_eps)
        (slope,) = torch.autograd.grad(penalty, weight)
        assert penalty.item() == pytest.approx(1, abs=1e-5)
        assert bool(torch.isfinite(slope).all()) is is_finite


def test_autocast_does_not_reach_it() -> None:
    critic, dtypes = nn.Linear(4, 1), []
    critic.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = gradient_penalty(critic, *(tensor.bfloat16() for tensor in samples(3, 4)))
    assert dtypes == [torch.float32]
    assert penalty.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(3, 3)), {}, ValueError, r"same shape .* got \(2, 3\) and \(3, 3\)"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), {}, ValueError, "N at least 1"),
        ((torch.zeros(2, dtype=torch.uint8), torch.zeros(2)), {}, TypeError, "real must be a float tensor"),
        ((torch.zeros(2), [0.0, 1.0]), {}, TypeError, "fake must be a float tensor"),
        ((torch.zeros(2), torch.zeros(2)), {"norm_eps": -1}, ValueError, "norm_eps"),
    ],
)
def test_samples_that_do_not_fit_are_told_why(
    arguments: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        gradient_penalty(lambda inputs: inputs, *arguments, **options)


def test_a_pair_of_losses_without_one_of_them_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="generator"):
        type("Half", (ScoreLoss,), {"discriminator": lambda self, real, fake: real})()
