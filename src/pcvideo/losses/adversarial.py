# SPDX-License-Identifier: Apache-2.0
"""What a discriminator and a generator minimise, from the scores of real and of generated samples.

A score is one unbounded number per sample; the higher, the more real it looks. The least-squares form is that of MSPN's
published code (arXiv 2212.11642), with +1 for real and -1 for generated; the paper's Eqs. 6-7 leave scores unbounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import check_number, describe

__all__ = ["HingeScoreLoss", "LeastSquaresScoreLoss", "ScoreLoss", "WassersteinScoreLoss", "gradient_penalty"]


class ScoreLoss(ABC):
    """A pair of losses on scores; a subclass gives both. They have no parameters, and are computed in float32 at least.

    Scores are of any shape, such as (N,); both losses are scalars, means over the scores.
    """

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises, from the scores of real and of generated samples."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """What the generator minimises, from the scores of what it generated."""

    def __repr__(self) -> str:
        """The name is all there is."""
        return f"{type(self).__name__}()"


class LeastSquaresScoreLoss(ScoreLoss):
    """Real samples are to score +1, generated ones -1 (Mao et al., ICCV 2017, with the targets of MSPN's code).

    Discriminator: mean((real - 1)**2) + mean((fake + 1)**2). Generator: mean((fake - 1)**2).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """0 where every real sample scores +1, every generated one -1; 2 where all score 0."""
        return (_widened(real) - 1).square().mean() + (_widened(fake) + 1).square().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """0 where every generated sample scores +1."""
        return (_widened(fake) - 1).square().mean()


class HingeScoreLoss(ScoreLoss):
    """Scores beyond +1 and -1 earn the discriminator no more (Lim and Ye 2017, arXiv 1705.02894, Eqs. 5 and 6).

    Discriminator: mean(relu(1 - real)) + mean(relu(1 + fake)). Generator: -mean(fake).
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """0 where every real sample scores at least +1, every generated one at most -1; 2 where all score 0."""
        return F.relu(1 - _widened(real)).mean() + F.relu(1 + _widened(fake)).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """The higher generated samples score, the lower, without bounds."""
        return -_widened(fake).mean()


class WassersteinScoreLoss(ScoreLoss):
    """The distance of the two distributions, as far as the critic sees it (Arjovsky et al. 2017, arXiv 1701.07875).

    Critic: mean(fake) - mean(real). Generator: -mean(fake). It means something only for a critic whose slope is
    bounded, as by `gradient_penalty`.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Minus the mean by which real samples score higher."""
        return _widened(fake).mean() - _widened(real).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """The higher generated samples score, the lower, without bounds."""
        return -_widened(fake).mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, norm_eps: float = 1e-12
) -> Tensor:
    """How far the critic's slope is from 1 between real and generated samples: WGAN-GP (arXiv 1704.00028, Eq. 3).

    At a random place v between each real sample and its generated one, drawn evenly, (|d score / d v| - 1)**2, averaged
    over samples; the norm is the Euclidean one over all axes but the first. Not weighted: the paper multiplies by 10.

    Both are detached, so the penalty reaches the critic alone. It is differentiated twice, so the critic is made of
    layers with second derivatives, and without batch normalisation, by which one sample's score depends on others.
    It is computed in float32 at least, autocast off. The draws come from PyTorch's generator of the CPU.

    Args:
        critic: gives a score for each sample; what else it looks at (a condition) it brings along, as in
            `gradient_penalty(lambda frames: critic(torch.cat([frames, condition], 1)), real, fake)`.
        real: (N, ...), float.
        fake: the same shape.
        norm_eps: added under the root, since the slope of a norm at 0 is infinite; 0 is as published.

    Returns:
        a scalar.

    Raises:
        TypeError, ValueError: the two are no float tensors of one shape, or norm_eps is negative.
    """
    check_number("norm_eps", norm_eps, minimum=0)
    for name, samples in (("real", real), ("fake", fake)):
        if not isinstance(samples, Tensor) or not samples.is_floating_point():
            raise TypeError(f"{name} must be a float tensor (N, ...), got {describe(samples)}")
    if real.shape != fake.shape or real.ndim == 0 or real.shape[0] == 0:
        raise ValueError(
            f"real and fake must have the same shape (N, ...), N at least 1, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}"
        )
    real, fake = _widened(real.detach()), _widened(fake.detach())
    share = torch.rand(real.shape[0]).to(real).view(-1, *[1] * (real.ndim - 1))
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(real, fake, share).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        norm = (slope.flatten(1).square().sum(1) + norm_eps).sqrt()
        return (norm - 1).square().mean()


def _widened(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
