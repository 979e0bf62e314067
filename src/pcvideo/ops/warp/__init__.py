# SPDX-License-Identifier: Apache-2.0
"""Frames seen along a flow."""

from pcvideo.ops.warp.op import backward_warp

__all__ = ["backward_warp"]
