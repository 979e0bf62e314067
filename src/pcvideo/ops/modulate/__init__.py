# SPDX-License-Identifier: Apache-2.0
"""Features scaled and shifted by other features."""

from pcvideo.ops.modulate.op import modulate

__all__ = ["modulate"]
