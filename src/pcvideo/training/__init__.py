# SPDX-License-Identifier: Apache-2.0
"""Training: a plain loop that owns devices, steps, checkpoints and logs, and strategies that own model and loss."""

from pcvideo.training.checkpoint import newest_checkpoint
from pcvideo.training.loggers import Logger, TensorBoardLogger, WandbLogger
from pcvideo.training.memory import largest_batch
from pcvideo.training.ranks import RankLostError
from pcvideo.training.schedules import Exponential, InverseSigmoid, Linear, learning_rate_factor
from pcvideo.training.signals import TrainingStopped
from pcvideo.training.strategies import (
    Adversarial,
    Alternating,
    Balanced,
    Colourisation,
    ConditionalAdversarial,
    DynamicInterpolation,
    FrameDoubling,
    Generated,
    InPhases,
    MotionInterpolation,
    SelfFeeding,
    SequenceStrategy,
    StaticInterpolation,
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
    "Colourisation",
    "ConditionalAdversarial",
    "DynamicInterpolation",
    "Exponential",
    "FrameDoubling",
    "Generated",
    "InPhases",
    "InverseSigmoid",
    "Linear",
    "Logger",
    "MotionInterpolation",
    "RankLostError",
    "SelfFeeding",
    "SequenceStrategy",
    "StaticInterpolation",
    "Strategy",
    "TeacherForced",
    "TensorBoardLogger",
    "Trainer",
    "TrainingStopped",
    "Turns",
    "Validation",
    "WandbLogger",
    "largest_batch",
    "learning_rate_factor",
    "newest_checkpoint",
]
