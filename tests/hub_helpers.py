# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Hub share: a small model, its files, and the code that loads it in a client's process."""

from __future__ import annotations

import torch

import pcvideo

__all__ = ["LOAD", "WEIGHTS", "files_of", "make_model", "prediction"]

LOAD = """
model = pcvideo.from_pretrained(name, **options)
frames = torch.linspace(0, 1, 2 * 8 * 8).view(1, 2, 1, 8, 8)
result = model(frames, 1).flatten().tolist()
"""
WEIGHTS = "model.safetensors"


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    numbers = {"in_channels": 1, "levels": 1, "channels": (4, 8), "hidden_channels": 4}
    return pcvideo.MSPN(**(numbers | options)).eval()


def files_of(model, folder, **options):
    model.save_pretrained(folder, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prediction(model):
    frames = torch.linspace(0, 1, 2 * 8 * 8).view(1, 2, 1, 8, 8)
    return model(frames, 1).flatten().tolist()
