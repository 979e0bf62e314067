# SPDX-License-Identifier: Apache-2.0
"""Regimes of training: what is fed, what is compared, what is optimised."""

from pcvideo.training.strategies.base import Strategy
from pcvideo.training.strategies.sequence import SelfFeeding, TeacherForced

__all__ = ["SelfFeeding", "Strategy", "TeacherForced"]
