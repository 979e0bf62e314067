# SPDX-License-Identifier: Apache-2.0
"""Training: a plain loop that owns devices, steps, checkpoints and logs, and strategies that own model and loss."""

from pcvideo.training.checkpoint import newest_checkpoint
from pcvideo.training.schedules import learning_rate_factor
from pcvideo.training.signals import TrainingStopped
from pcvideo.training.strategies import SelfFeeding, Strategy, TeacherForced
from pcvideo.training.trainer import Trainer
from pcvideo.training.validation import Validation

__all__ = [
    "SelfFeeding",
    "Strategy",
    "TeacherForced",
    "Trainer",
    "TrainingStopped",
    "Validation",
    "learning_rate_factor",
    "newest_checkpoint",
]
