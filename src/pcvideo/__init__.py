# SPDX-License-Identifier: Apache-2.0
"""Predict what a video shows next: predictive-coding networks in PyTorch, with weights that load.

model = pcvideo.from_pretrained("mspn-moving-mnist")
future = model.predict("walk.mp4", horizon=10, to_grey=True)  # (T, C, H, W) in [0, 1]
"""

from pcvideo import (
    convert,
    data,
    enhancement,
    export,
    hub,
    layers,
    losses,
    metrics,
    models,
    ops,
    rollout,
    training,
    video_io,
    viz,
)
from pcvideo._version import __version__
from pcvideo.enhancement import enhance
from pcvideo.hub import create_model, from_pretrained, list_models, push_to_hub
from pcvideo.layers import ConvLSTMCell, EDLSTMCell, LearnableFIR, ModulatedConv
from pcvideo.models import (
    MSPN,
    PPNV2,
    AEncGAN3D,
    ConvLSTMPredictor,
    FrameDoubler,
    Grey2RGB,
    MultiScalePredictor,
    WaveletVFI,
    adapt,
)
from pcvideo.training import Trainer

__all__ = [
    "MSPN",
    "PPNV2",
    "AEncGAN3D",
    "ConvLSTMCell",
    "ConvLSTMPredictor",
    "EDLSTMCell",
    "FrameDoubler",
    "Grey2RGB",
    "LearnableFIR",
    "ModulatedConv",
    "MultiScalePredictor",
    "Trainer",
    "WaveletVFI",
    "__version__",
    "adapt",
    "convert",
    "create_model",
    "data",
    "enhance",
    "enhancement",
    "export",
    "from_pretrained",
    "hub",
    "layers",
    "list_models",
    "losses",
    "metrics",
    "models",
    "ops",
    "push_to_hub",
    "rollout",
    "training",
    "video_io",
    "viz",
]
