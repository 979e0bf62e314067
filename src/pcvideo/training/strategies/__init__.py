# SPDX-License-Identifier: Apache-2.0
"""Regimes of training: what is fed, what is compared, what is optimised."""

from pcvideo.training.strategies.adversarial import Adversarial, Generated
from pcvideo.training.strategies.base import Strategy
from pcvideo.training.strategies.conditional import ConditionalAdversarial
from pcvideo.training.strategies.fusion import Colourisation, FrameDoubling
from pcvideo.training.strategies.interpolation import DynamicInterpolation, MotionInterpolation, StaticInterpolation
from pcvideo.training.strategies.phases import InPhases
from pcvideo.training.strategies.sequence import SelfFeeding, SequenceStrategy, TeacherForced
from pcvideo.training.strategies.turns import Alternating, Balanced, Turns

__all__ = [
    "Adversarial",
    "Alternating",
    "Balanced",
    "Colourisation",
    "ConditionalAdversarial",
    "DynamicInterpolation",
    "FrameDoubling",
    "Generated",
    "InPhases",
    "MotionInterpolation",
    "SelfFeeding",
    "SequenceStrategy",
    "StaticInterpolation",
    "Strategy",
    "TeacherForced",
    "Turns",
]
