# SPDX-License-Identifier: Apache-2.0
"""The signed error of a prediction as two non-negative halves."""

from pcvideo.ops.split_error.op import split_error

__all__ = ["split_error"]
