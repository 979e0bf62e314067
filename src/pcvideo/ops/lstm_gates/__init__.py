# SPDX-License-Identifier: Apache-2.0
"""Four gate pre-activations and a cell to the next hidden and cell."""

from pcvideo.ops.lstm_gates.op import lstm_gates

__all__ = ["lstm_gates"]
