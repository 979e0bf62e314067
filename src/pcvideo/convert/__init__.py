# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published code to models of this package; a system is one small file with one table of names."""

from pcvideo.convert.checkpoints import read_checkpoint
from pcvideo.convert.originals import SYSTEMS, Original, load_original, read_original, save_original, to_original

__all__ = ["SYSTEMS", "Original", "load_original", "read_checkpoint", "read_original", "save_original", "to_original"]
