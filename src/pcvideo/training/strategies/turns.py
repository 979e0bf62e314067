# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, where a generator and a discriminator are trained one at a time.

`Balanced` is Algorithm 2 of the MSPN paper (arXiv 2212.11642) as the published code has it: on means over the last few
scores, and with another tolerance for going on than for ending. The cap on a phase is ours; the published one has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pcvideo._checks import check_int, check_number

__all__ = ["Alternating", "Balanced", "Turns"]


class Turns(nn.Module, ABC):
    """A rule for whose turn it is. What it remembers it keeps in buffers, so that a resumed run goes on with it."""

    @abstractmethod
    def is_discriminators(self, step: int) -> bool:
        """Whether the discriminator is trained in this step, counted from the first one that it takes part in."""

    def update(self, real: float, fake: float) -> None:
        """Told after each step the mean scores of real and of generated samples, the same on every rank."""


class Alternating(Turns):
    """So many steps of the discriminator, then one of the generator, whatever the scores; WGAN-GP is published with 5.

    Args:
        discriminator_steps: at least 1.
    """

    def __init__(self, *, discriminator_steps: int = 5) -> None:
        super().__init__()
        self.discriminator_steps = check_int("discriminator_steps", discriminator_steps)

    def is_discriminators(self, step: int) -> bool:
        """True but for every last of `discriminator_steps + 1` steps."""
        return step % (self.discriminator_steps + 1) < self.discriminator_steps


class Balanced(Turns):
    """The discriminator is kept slightly stronger: by the scores, either trains until the other has to catch up.

    With R and F the means of the last `window` mean scores of real and of generated samples, and a first score of 0
    in both lists:

    - the discriminator goes on while F >= R - tolerance_enter * |R|, unless `window` scores are there and
      F < R - tolerance_leave * |R|;
    - the generator goes on until `window` scores are there and F >= R - tolerance_enter * |R|;
    - either makes at least one step, and at most `max_phase_steps`.

    The discriminator begins. As published, it stops a little before it is as strong as would let the generator go on,
    so that the generator's phase is short there.

    Args:
        window: how many scores a mean is taken over.
        tolerance_enter: share of |R| by which generated samples must score lower for the generator to go on; MSPN's c2.
        tolerance_leave: share of |R| by which they must for the discriminator to stop; MSPN's c1.
        max_phase_steps: steps after which the other takes over in any case; None is as published, without a cap: there
            one of them may never come to its turn.
    """

    _scores: Tensor
    _counts: Tensor

    def __init__(
        self,
        *,
        window: int = 3,
        tolerance_enter: float = 1 / 50,
        tolerance_leave: float = 1 / 100,
        max_phase_steps: int | None = 50,
    ) -> None:
        super().__init__()
        self.window = check_int("window", window)
        self.tolerance_enter = check_number("tolerance_enter", tolerance_enter, minimum=0)
        self.tolerance_leave = check_number("tolerance_leave", tolerance_leave, minimum=0)
        self.max_phase_steps = None if max_phase_steps is None else check_int("max_phase_steps", max_phase_steps)
        # Of real and of generated samples, the newest last; in float32, as scores are, and as every device has it.
        self.register_buffer("_scores", torch.zeros(2, self.window))
        # Scores that are stored, steps of this phase, whether it is the generator's.
        self.register_buffer("_counts", torch.tensor([1, 0, 0]))

    @property
    def phase_steps(self) -> int:
        """Steps made so far in the present phase."""
        return int(self._counts[1])

    def is_discriminators(self, step: int) -> bool:
        """By the scores so far; the step doesn't matter."""
        return not bool(self._counts[2])

    def update(self, real: float, fake: float) -> None:
        """Take up the scores of a step, and change the phase if it is over."""
        newest = torch.tensor([[real], [fake]]).to(self._scores)
        self._scores.copy_(torch.cat([self._scores[:, 1:], newest], 1))
        stored, steps, is_generators = self._counts.tolist()
        stored, steps = min(stored + 1, self.window), steps + 1
        if self._is_over(stored, bool(is_generators)) or steps == self.max_phase_steps:
            steps, is_generators = 0, 1 - is_generators
        self._counts.copy_(torch.tensor([stored, steps, is_generators]))

    def _is_over(self, stored: int, is_generators: bool) -> bool:
        means: list[float] = self._scores[:, -stored:].double().mean(1).tolist()
        real, fake = means
        is_behind = fake >= real - self.tolerance_enter * abs(real)
        if is_generators:
            return stored == self.window and is_behind
        return not is_behind or (stored == self.window and fake < real - self.tolerance_leave * abs(real))
