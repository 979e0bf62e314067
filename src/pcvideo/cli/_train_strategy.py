# SPDX-License-Identifier: Apache-2.0
"""The strategy that `pcvideo train` trains by: regime, losses, schedules and discriminator out of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pcvideo.cli._train_settings import ADVERSARIAL_SETTINGS
from pcvideo.losses import (
    EncodingLoss,
    FramePerceptualLoss,
    HingeScoreLoss,
    LeastSquaresScoreLoss,
    PyramidLoss,
    ScoreLoss,
    SumLoss,
    WassersteinScoreLoss,
)
from pcvideo.models import FrameDiscriminator, Predictor
from pcvideo.training import (
    Adversarial,
    Alternating,
    Balanced,
    Exponential,
    InverseSigmoid,
    Linear,
    SelfFeeding,
    Strategy,
    TeacherForced,
)

__all__ = ["strategy_of"]

_SCORES: Mapping[str, Callable[[], ScoreLoss]] = {
    "least_squares": LeastSquaresScoreLoss,
    "hinge": HingeScoreLoss,
    "wasserstein": WassersteinScoreLoss,
}
# What is for one strategy alone, and refused with another where it is changed.
_FOR_SELF_FEEDING = {"detach": False, "encoding_loss": False, "true_frames": 0.0, "growth": None}
_FOR_ADVERSARIAL = {setting.name: setting.default for setting in ADVERSARIAL_SETTINGS}


def strategy_of(settings: Mapping[str, Any], model: Predictor) -> Strategy:
    """The strategy.

    Args:
        settings: those of the command, with the published loss filled in.
        model: that will be trained.

    Raises:
        TypeError, ValueError: a setting is out of its range, or for another strategy.
    """
    kind = settings["strategy"]
    if kind == "teacher-forced":
        _refuse(settings, _FOR_SELF_FEEDING, "self-feeding", "nothing is fed back in teacher-forced")
    if kind != "adversarial":
        _refuse(settings, _FOR_ADVERSARIAL, "adversarial", f"{kind} has no discriminator")
    norm = {"norm": settings["loss_norm"], "batch_mean": settings["batch_mean"] and settings["loss_norm"] != "mean"}
    weights = {name: settings[name] for name in ("level_weights", "step_weights")}
    loss: nn.Module = PyramidLoss(**norm, **weights)
    if settings["perceptual"]:
        loss = SumLoss(loss, FramePerceptualLoss(step_weights=settings["step_weights"]))
    common = {name: settings[name] for name in ("context", "horizon", "detach_targets", "truncate")}
    common |= {"loss": loss, "checkpoint": settings["recompute"]}
    if kind == "teacher-forced":
        return TeacherForced(**common)
    encoding = EncodingLoss(**norm, level_weights=settings["level_weights"]) if settings["encoding_loss"] else None
    growth = settings["growth"]
    regime = SelfFeeding(
        **common,
        detach=settings["detach"],
        encoding_loss=encoding,
        true_frames=_schedule("true_frames", settings["true_frames"]),
        growth=None if growth is None else _schedule("growth", growth),
    )
    return regime if kind == "self-feeding" else _adversarial(settings, regime, model)


def _adversarial(settings: Mapping[str, Any], regime: SelfFeeding, model: Predictor) -> Adversarial:
    names = ("adversarial_weight", "pixel_weight", "pixel_steps", "gradient_penalty", "judge_from")
    return Adversarial(
        regime,
        _discriminator(settings, model),
        score=_SCORES[settings["score"]](),
        turns=_turns(settings),
        discriminator_rate=settings["discriminator_rate"],
        **{name: settings[name] for name in names},
    )


def _discriminator(settings: Mapping[str, Any], model: Predictor) -> FrameDiscriminator:
    published = settings["published_discriminator"]
    if published and settings["size"] is None:
        raise ValueError("--published-discriminator is bound to one frame size; give it with --size HEIGHT WIDTH")
    return FrameDiscriminator(
        channels=settings["discriminator_channels"],
        in_channels=model.in_channels,
        size=settings["size"] if published else None,
        normalize="batch" if published else "frame",
        # A penalty on the slope of single scores wants them to depend on nothing else.
        norm=None if settings["gradient_penalty"] or settings["discriminator_norm"] == "none" else "batch",
    )


def _turns(settings: Mapping[str, Any]) -> Balanced | Alternating:
    if settings["discriminator_steps"] is not None:
        return Alternating(discriminator_steps=settings["discriminator_steps"])
    return Balanced(
        window=settings["balance_window"],
        tolerance_enter=settings["tolerance_enter"],
        tolerance_leave=settings["tolerance_leave"],
        max_phase_steps=settings["max_phase_steps"] or None,
    )


def _schedule(name: str, value: Any) -> Any:
    """A number as it is; (start, end, steps) and (start, end, steps, after); or a word and its number."""
    if not isinstance(value, tuple):
        return value
    named: Mapping[Any, Callable[[float], Any]] = {"exponential": Exponential, "inverse_sigmoid": InverseSigmoid}
    if len(value) == 2 and value[0] in named:
        return named[value[0]](value[1])
    if len(value) not in (3, 4) or not all(isinstance(number, float) for number in value):
        raise ValueError(
            f"{name} must be a number, START END STEPS [AFTER], exponential BASE or inverse_sigmoid SCALE, got "
            f"{' '.join(map(str, value))}"
        )
    whole = [int(number) if number == int(number) else number for number in value[2:]]
    return Linear(value[0], value[1], *whole)


def _refuse(settings: Mapping[str, Any], defaults: Mapping[str, Any], strategy: str, why: str) -> None:
    for name, default in defaults.items():
        if settings[name] != default:
            raise ValueError(f"--{name.replace('_', '-')} is for --strategy {strategy}; {why}")
