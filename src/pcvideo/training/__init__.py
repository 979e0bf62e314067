# SPDX-License-Identifier: Apache-2.0
"""Training: a plain loop that owns devices, steps, checkpoints and logs, and strategies that own model and loss."""

from pcvideo.training.checkpoint import newest_checkpoint
from pcvideo.training.schedules import Exponential, InverseSigmoid, Linear, learning_rate_factor
from pcvideo.training.signals import TrainingStopped
from pcvideo.training.strategies import (
    Adversarial,
    Alternating,
    Balanced,
    ConditionalAdversarial,
    Generated,
    InPhases,
    SelfFeeding,
    SequenceStrategy,
    Strategy,
    TeacherForced,
    Turns,
)
from pcvideo.training.trainer import Trainer
from pcvideo.training.validation import Validation

__all__ = [
    "Adversarial",
    "Alternating",
    "Balanced",
    "ConditionalAdversarial",
    "Exponential",
    "Generated",
    "InPhases",
    "InverseSigmoid",
    "Linear",
    "SelfFeeding",
    "SequenceStrategy",
    "Strategy",
    "TeacherForced",
    "Trainer",
    "TrainingStopped",
    "Turns",
    "Validation",
    "learning_rate_factor",
    "newest_checkpoint",
]
