# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints of other frameworks, as models of this package."""

from pcvideo.convert.keras_3d import conv_lstm_from_keras, read_keras_weights

__all__ = ["conv_lstm_from_keras", "read_keras_weights"]
