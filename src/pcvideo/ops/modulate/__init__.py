# SPDX-License-Identifier: Apache-2.0
"""Features scaled and shifted by other features."""

from pcvideo.ops.modulate.reference import modulate

__all__ = ["modulate"]
