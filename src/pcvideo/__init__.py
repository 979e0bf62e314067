# SPDX-License-Identifier: Apache-2.0
"""Predict what a video shows next: predictive-coding networks in PyTorch, with weights that load."""

from pcvideo._version import __version__
from pcvideo.layers import EDLSTMCell
from pcvideo.models import MSPN, MultiScalePredictor

__all__ = ["MSPN", "EDLSTMCell", "MultiScalePredictor", "__version__"]
