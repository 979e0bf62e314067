# SPDX-License-Identifier: Apache-2.0
"""Clips to train and evaluate on."""

from .digits import find_mnist, procedural_digits, read_idx
from .moving_mnist import MovingMNIST, MovingMNISTFile, read_moving_mnist_test

__all__ = [
    "MovingMNIST",
    "MovingMNISTFile",
    "find_mnist",
    "procedural_digits",
    "read_idx",
    "read_moving_mnist_test",
]
