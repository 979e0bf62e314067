# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: a discriminator learns to tell real frames from predicted ones, and the model to mislead it.

The defaults are Algorithm 2 of the MSPN paper (arXiv 2212.11642) as its published code has it. With other scores and
turns it is WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028), whose critic may look at a condition beside each sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcvideo._checks import check_bool, check_int, check_number, describe
from pcvideo.losses import LeastSquaresScoreLoss, ScoreLoss, gradient_penalty
from pcvideo.training.strategies.base import Strategy, name_within
from pcvideo.training.strategies.turns import Balanced, Turns

__all__ = ["Adversarial", "Generated"]

# As they are logged.
_PIXEL, _DISCRIMINATORS, _GENERATORS = 0, 1, 2


class Generated(NamedTuple):
    """What is judged, sample by sample, and what was rolled out to make it.

    `real` and `fake` (N, C, H, W) have the same shape; `condition` is whatever `judge` looks at beside them; `steps` is
    what the regime's `loss_of` takes.
    """

    real: Tensor
    fake: Tensor
    condition: Any = None
    steps: Any = None


class Adversarial(Strategy):
    """The model is trained by a regime's loss and by a discriminator's scores, the discriminator in turn with it.

    Each batch trains one of the two, as `turns` says. In its turn the discriminator minimises `score.discriminator` of
    true frames and of the detached predictions of these, which pass through it apart from each other. In its own turn
    the model minimises `pixel_weight` times the regime's loss plus `adversarial_weight` times `score.generator`. The
    network that rests is in eval mode.

    MSPN is published as `Adversarial(SelfFeeding(context=10, horizon=10), FrameDiscriminator(size=(128, 128),
    normalize="batch"), turns=Balanced(max_phase_steps=None))` with Adam, `lr=1e-5, weight_decay=1e-4, batch_size=1`;
    WGAN-GP, without the critic's batch normalisation, as `score=WassersteinScoreLoss(),
    turns=Alternating(discriminator_steps=5), gradient_penalty=10, adversarial_weight=1, pixel_weight=0`.

    Logged are `phase` (0 pixel loss only, 1 the discriminator's turn, 2 the model's), `phase_steps` (steps of the
    present phase, this one included; `Balanced` only), the mean scores `real_score` and `predicted_score`, and each
    loss.

    A subclass may override `generate` (what is judged) and `judge` (the scores), as a critic with a condition needs.

    Args:
        regime: rolls clips out and compares them, as `SelfFeeding` and `TeacherForced` do; its context, horizon and
            schedules count. Its loss must be a mean over the batch, since the scores' is.
        discriminator: frames (N, C, H, W) to N scores.
        score: the losses on scores; None is `LeastSquaresScoreLoss()`.
        turns: whose turn it is; None is `Balanced()`.
        adversarial_weight: of the generator's loss on scores.
        pixel_weight: of the regime's loss; 0 leaves it out.
        gradient_penalty: weight of the penalty on the discriminator's slope; 0 leaves it out.
        pixel_steps: so many steps first by the regime's loss alone.
        judge_from: the first frame of a clip, from 0, that is judged; None is half of the context, as published, and at
            least 1.
        discriminator_rate: the discriminator's learning rate as a factor of the model's.
        rest_in_eval: put the network that rests into eval mode; False leaves both in train mode.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        regime: Strategy,
        discriminator: nn.Module,
        *,
        score: ScoreLoss | None = None,
        turns: Turns | None = None,
        adversarial_weight: float = 100.0,
        pixel_weight: float = 1.0,
        gradient_penalty: float = 0.0,
        pixel_steps: int = 0,
        judge_from: int | None = None,
        discriminator_rate: float = 1e-2,
        rest_in_eval: bool = True,
    ) -> None:
        _check_regime(regime)
        super().__init__(context=regime.context, horizon=regime.horizon)
        self.regime, self.discriminator = regime, discriminator
        self.score = LeastSquaresScoreLoss() if score is None else score
        self.turns = Balanced() if turns is None else turns
        self.adversarial_weight = check_number("adversarial_weight", adversarial_weight, minimum=0)
        self.pixel_weight = check_number("pixel_weight", pixel_weight, minimum=0)
        self.gradient_penalty = check_number("gradient_penalty", gradient_penalty, minimum=0)
        self.pixel_steps = check_int("pixel_steps", pixel_steps, minimum=0)
        first = max(1, self.context // 2) if judge_from is None else check_int("judge_from", judge_from)
        if first >= self.length:
            raise ValueError(f"judge_from must be below context + horizon = {self.length}, got {judge_from}")
        self.judge_from = first
        self.rest_in_eval = check_bool("rest_in_eval", rest_in_eval)
        rate = check_number("discriminator_rate", discriminator_rate, minimum=0)
        own = {name_within("regime", pattern): factor for pattern, factor in regime.rates.items()}
        self.rates = {"discriminator.*": rate, **own}
        self._phase = _PIXEL

    def begin(self, step: int) -> None:
        """Look up whose turn it is, and let the other network rest."""
        self.regime.begin(step)
        self._phase = self._phase_of(step)
        resting = self.model if self._phase == _DISCRIMINATORS else self.discriminator
        self.rest(resting)
        if self.rest_in_eval:
            resting.eval()

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W) for the network whose turn it is."""
        if self._phase == _PIXEL:
            loss, logs = self.regime(batch)
        elif self._phase == _DISCRIMINATORS:
            loss, logs = self._discriminators_loss(batch)
        else:
            loss, logs = self._generators_loss(batch)
        return loss, logs | {name: loss.new_tensor(value) for name, value in self._phase_facts().items()}

    def generate(self, batch: Tensor) -> Generated:
        """Roll a batch (B, T, C, H, W) out: the true frames from `judge_from` on, and the predictions of them."""
        steps: Any = self.regime.roll_out(batch)  # type: ignore[operator]
        first = self.judge_from
        # The prediction made at step t is of frame t + 1.
        fake = torch.stack([pyramid[0] for pyramid in steps.predictions[first - 1 :]], 1)
        real = batch[:, first : first + fake.shape[1]]
        return Generated(real.flatten(0, 1), fake.flatten(0, 1), steps=steps)

    def judge(self, frames: Tensor, condition: Any) -> Tensor:
        """The scores of frames (N, C, H, W), the real ones or those that were generated."""
        return self.discriminator(frames)

    def update(self, logs: Any) -> None:
        """Hand the scores to the turns."""
        if "real_score" in logs:
            self.turns.update(logs["real_score"], logs["predicted_score"])

    def _discriminators_loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            generated = self.generate(batch)
        fake, condition = generated.fake.detach(), generated.condition
        real_scores, fake_scores = self.judge(generated.real, condition), self.judge(fake, condition)
        loss = self.score.discriminator(real_scores, fake_scores)
        logs = {"discriminator": loss.detach(), **_means(real_scores, fake_scores)}
        if self.gradient_penalty:
            penalty = gradient_penalty(lambda frames: self.judge(frames, condition), generated.real, fake)
            loss = loss + self.gradient_penalty * penalty
            logs["gradient_penalty"] = penalty.detach()
        return loss, logs

    def _generators_loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        generated = self.generate(batch)
        with torch.no_grad():
            real_scores = self.judge(generated.real, generated.condition)
        fake_scores = self.judge(generated.fake, generated.condition)
        adversarial = self.score.generator(fake_scores)
        loss = self.adversarial_weight * adversarial
        logs = {"adversarial": adversarial.detach(), **_means(real_scores, fake_scores)}
        if self.pixel_weight:
            pixel, regime_logs = self.regime.loss_of(generated.steps)  # type: ignore[operator]
            loss = self.pixel_weight * pixel + loss
            logs |= {"pixel": pixel.detach(), **regime_logs}
        return loss, logs

    def _phase_of(self, step: int) -> int:
        if step < self.pixel_steps:
            return _PIXEL
        return _DISCRIMINATORS if self.turns.is_discriminators(step - self.pixel_steps) else _GENERATORS

    def _phase_facts(self) -> dict[str, float]:
        facts = {"phase": float(self._phase)}
        if self._phase != _PIXEL and isinstance(self.turns, Balanced):
            facts["phase_steps"] = self.turns.phase_steps + 1.0
        return facts


def _means(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    return {"real_score": real.detach().float().mean(), "predicted_score": fake.detach().float().mean()}


def _check_regime(regime: Any) -> None:
    if not isinstance(regime, Strategy) or not hasattr(regime, "roll_out"):
        raise TypeError(f"regime must be a strategy that rolls clips out, such as SelfFeeding, got {describe(regime)}")
    if regime.reduction != "mean":
        raise ValueError(
            "regime must have a loss that is a mean over the batch, as that of the scores is; a PyramidLoss takes "
            "batch_mean=True, which changes nothing at the published batch size of 1"
        )
    if getattr(regime, "truncate", None) is not None:
        raise ValueError("regime must look at whole clips, as its predictions are judged together; leave truncate out")
