# SPDX-License-Identifier: Apache-2.0
"""A long sequence with twice the frames, in colour, in constant memory: what `pcvideo enhance` does.

The pipeline of spatio-temporal fusion: a doubler finds the frame between each two, a colouriser colours all of them,
each usable alone. Published, every process began with an empty state and named its pictures by the frame that it read,
so that several wrote over one another's; here a picture's name is its place in the whole, and what is found in it does
not depend on who found it.
"""

from pcvideo.enhancement.doubling import double_frames
from pcvideo.enhancement.enhance import Enhanced, enhance
from pcvideo.enhancement.enhancer import Enhancer

__all__ = ["Enhanced", "Enhancer", "double_frames", "enhance"]
