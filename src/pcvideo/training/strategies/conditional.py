# SPDX-License-Identifier: Apache-2.0
"""AEncGAN3D's training: a critic that is shown a condition beside each candidate, by WGAN-GP (arXiv 1704.00028).

The published code (github.com/Marchine85/4D-Predictive-GAN-ConvLSTM) shows its critic the target itself, so that it learns
a distance from the truth; shown the input instead, it judges whether a volume is a likely next one.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from pcvideo.training.strategies.adversarial import Adversarial, Generated

__all__ = ["ConditionalAdversarial"]


class ConditionalAdversarial(Adversarial):
    """`Adversarial` with a condition beside each frame, as the model's `condition` and `context` say.

    With the condition "input" the critic is shown, beside a frame, the `context` true frames before it; with "target"
    the true frame itself. It takes them along the channels: (N, C * (1 + context), *space), or (N, 2 * C, *space).

    AEncGAN3D is published as `ConditionalAdversarial(TeacherForced(context=1, horizon=1, loss=VolumeLoss()),
    model.make_critic(), score=WassersteinScoreLoss(), turns=Alternating(discriminator_steps=1), gradient_penalty=100,
    adversarial_weight=1, pixel_weight=0, judge_from=1, discriminator_rate=1, rest_in_eval=False)` for a model with
    `condition="target"`, Adam and `lr=1e-4`. There the penalty is taken of the critic without its dropout; here of the
    critic as it is. A `pixel_weight` above 0 is ours: the published training had no loss on voxels.

    Arguments are those of `Adversarial`; `judge_from` must be at least the model's context.
    """

    def attach(self, model: nn.Module) -> Self:
        """Take the model to train; the trainer calls it.

        Raises:
            TypeError: the model does not say what its critic is shown.
            ValueError: frames are judged that the model can't predict yet.
        """
        for name in ("condition", "context"):
            if not hasattr(model, name):
                raise TypeError(
                    f"{type(model).__name__} has no {name!r}, which says what its critic is shown; Adversarial is for "
                    f"models without"
                )
        if self.judge_from < int(model.context):  # type: ignore[arg-type]
            raise ValueError(
                f"judge_from must be at least the model's context of {model.context} frames, got {self.judge_from}"
            )
        return super().attach(model)

    def generate(self, batch: Tensor) -> Generated:
        """Roll a batch (B, T, C, *space) out, and put beside each frame what the critic is shown."""
        generated = super().generate(batch)
        if self.model.condition == "target":
            return generated._replace(condition=generated.real)
        first, context = self.judge_from, self.model.context
        count = len(generated.real) // len(batch)
        # Oldest first; the frames before frame t, for each t that is judged.
        past = [batch[:, first - back : first - back + count] for back in range(context, 0, -1)]
        return generated._replace(condition=torch.cat(past, dim=2).flatten(0, 1))

    def judge(self, frames: Tensor, condition: Any) -> Tensor:
        """The scores of frames (N, C, *space), each with its condition."""
        return self.discriminator(torch.cat([frames, condition.to(frames.dtype)], dim=1))
