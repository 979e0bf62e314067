# SPDX-License-Identifier: Apache-2.0
"""Clips to train and evaluate on."""

from pcvideo.data.cavities import CAVITIES, Cavity, CavityScene, generate_scenes, make_scene
from pcvideo.data.clips import ClipDataset, TensorClips, Window, cut_windows
from pcvideo.data.digits import MNIST_MIRRORS, download_mnist, find_mnist, read_idx
from pcvideo.data.drawn_digits import procedural_digits
from pcvideo.data.frame_folders import FrameFolder
from pcvideo.data.moving_mnist import MovingMNIST, MovingMNISTFile, read_moving_mnist_test
from pcvideo.data.moving_photographs import MovingPhotographs, UnknownFlows, photographs
from pcvideo.data.transforms import (
    CenterCrop,
    Compose,
    Enlarge,
    HorizontalFlip,
    LivelyCrop,
    MovingCrop,
    RandomCrop,
    Resize,
    ReverseChannels,
    TimeReverse,
    ToGrey,
    Transpose,
    VerticalFlip,
)
from pcvideo.data.triplets import TripletFolder, VideoTriplets
from pcvideo.data.video_files import VideoFolder, open_clips
from pcvideo.data.voxels import VOXEL_FORMATS, CubeSymmetry, RandomTimes, VoxelScenes, reduce_volumes

__all__ = [
    "CAVITIES",
    "MNIST_MIRRORS",
    "VOXEL_FORMATS",
    "Cavity",
    "CavityScene",
    "CenterCrop",
    "ClipDataset",
    "Compose",
    "CubeSymmetry",
    "Enlarge",
    "FrameFolder",
    "HorizontalFlip",
    "LivelyCrop",
    "MovingCrop",
    "MovingMNIST",
    "MovingMNISTFile",
    "MovingPhotographs",
    "RandomCrop",
    "RandomTimes",
    "Resize",
    "ReverseChannels",
    "TensorClips",
    "TimeReverse",
    "ToGrey",
    "Transpose",
    "TripletFolder",
    "UnknownFlows",
    "VerticalFlip",
    "VideoFolder",
    "VideoTriplets",
    "VoxelScenes",
    "Window",
    "cut_windows",
    "download_mnist",
    "find_mnist",
    "generate_scenes",
    "make_scene",
    "open_clips",
    "photographs",
    "procedural_digits",
    "read_idx",
    "read_moving_mnist_test",
    "reduce_volumes",
]
