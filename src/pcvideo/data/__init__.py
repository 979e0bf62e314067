# SPDX-License-Identifier: Apache-2.0
"""Clips to train and evaluate on."""

from .digits import MNIST_MIRRORS, download_mnist, find_mnist, read_idx
from .drawn_digits import procedural_digits
from .moving_mnist import MovingMNIST, MovingMNISTFile, read_moving_mnist_test

__all__ = [
    "MNIST_MIRRORS",
    "MovingMNIST",
    "MovingMNISTFile",
    "download_mnist",
    "find_mnist",
    "procedural_digits",
    "read_idx",
    "read_moving_mnist_test",
]
