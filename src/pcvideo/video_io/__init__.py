# SPDX-License-Identifier: Apache-2.0
"""Frames in, frames out: clips from videos, GIFs, folders of pictures, arrays and tensors; clips to MP4, GIF and PNG.

Decoding is PyAV's, pictures are Pillow's, those deeper than 8 bits tifffile's, PyAV's and rawpy's; all are imported on
first use. What had to be repaired, turned upright or left out is told in `Clip.notes`; what can't be read is a
`VideoError` that names the file and the mend.
"""

from pcvideo.video_io.convert import VideoError, resize_frames, to_clip_tensor, to_grey
from pcvideo.video_io.cuts import CUT, frame_change
from pcvideo.video_io.deep_pictures import RAW_SUFFIXES
from pcvideo.video_io.frames import OpenedFrames, open_frames
from pcvideo.video_io.pictures import PICTURE_SUFFIXES, natural_key
from pcvideo.video_io.read import (
    VIDEO_SUFFIXES,
    Clip,
    FrameSource,
    VideoInfo,
    iter_frames,
    open_source,
    probe,
    read_clip,
    read_window,
)
from pcvideo.video_io.volumes import SCENE_SUFFIXES, Scenes, read_scenes, read_volumes, write_scenes
from pcvideo.video_io.write import write_frames, write_gif, write_picture, write_video

__all__ = [
    "CUT",
    "PICTURE_SUFFIXES",
    "RAW_SUFFIXES",
    "SCENE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "FrameSource",
    "OpenedFrames",
    "Scenes",
    "VideoError",
    "VideoInfo",
    "frame_change",
    "iter_frames",
    "natural_key",
    "open_frames",
    "open_source",
    "probe",
    "read_clip",
    "read_scenes",
    "read_volumes",
    "read_window",
    "resize_frames",
    "to_clip_tensor",
    "to_grey",
    "write_frames",
    "write_gif",
    "write_picture",
    "write_scenes",
    "write_video",
]
