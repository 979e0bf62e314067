# SPDX-License-Identifier: Apache-2.0
"""Weights by name: what is known, loading it from wherever it lies, and publishing one's own with a card."""

from pcvideo.hub.known import PublishedModel, list_models
from pcvideo.hub.load import create_model, find_weights, from_pretrained
from pcvideo.hub.publish import publish_folder, push_to_hub, write_weights_folder

__all__ = [
    "PublishedModel",
    "create_model",
    "find_weights",
    "from_pretrained",
    "list_models",
    "publish_folder",
    "push_to_hub",
    "write_weights_folder",
]
