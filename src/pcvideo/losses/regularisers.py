# SPDX-License-Identifier: Apache-2.0
"""What spatio-temporal fusion adds to an error, by plain names, and how it adds it.

The published code speaks of a maximum entropy principle. Its last version adds the total variation of the picture, its
earlier ones an entropy with a plus sign, which makes it small. Both are here, and one that does make an entropy large.
Each is called with frames alone, and gives one number to be made small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcvideo._checks import check_bool, check_choice, check_int, check_number, describe

__all__ = ["MaximumEntropy", "RegularisedLoss", "SoftmaxEntropy", "TotalVariation"]


class TotalVariation(nn.Module):
    """Absolute differences of neighbouring pixels, vertical plus horizontal (the published code's last version).

    Args:
        reduction: "published": the sum over everything, divided by the number of pixels, so that channels add up;
            "mean": that divided by the channels too.

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, *, reduction: str = "published") -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, ("published", "mean"))

    def forward(self, frames: Tensor) -> Tensor:
        """One number for frames (..., C, H, W), float.

        Raises:
            TypeError, ValueError: no float frames.
        """
        frames = _working(frames)
        total = frames.diff(dim=-2).abs().sum() + frames.diff(dim=-1).abs().sum()
        pixels = frames[..., :1, :, :].numel()
        return total / (pixels if self.reduction == "published" else frames.numel())


class SoftmaxEntropy(nn.Module):
    """The entropy, in nats, of the softmax over a pixel's colours, averaged over pixels (its first two versions).

    Made small, it drives the colours of a pixel apart; for values in [0, 1] it lies between 0.98 and ln 3 = 1.10.
    """

    def forward(self, frames: Tensor) -> Tensor:
        """One number for frames (..., C, H, W), float; arguments and errors as `TotalVariation`."""
        logarithms = _working(frames).log_softmax(dim=-3)
        return -(logarithms.exp() * logarithms).sum(dim=-3).mean()


class MaximumEntropy(nn.Module):
    """Minus the entropy, in nats, of the values that a frame's channel takes: made small, the values are many.

    A soft histogram: each value is shared between the two nearest of `bins` places from 0 to 1, by its distance. A
    plane of one value at such a place gives 0, one that takes all of them equally often gives -ln(bins).

    Args:
        bins: how many places, at least 2.

    Raises:
        TypeError, ValueError: `bins` is no such number.
    """

    def __init__(self, *, bins: int = 16) -> None:
        super().__init__()
        self.bins = check_int("bins", bins, minimum=2)

    def forward(self, frames: Tensor) -> Tensor:
        """The mean over frames and channels of (..., C, H, W), float, values held to [0, 1]; errors as above."""
        places = _working(frames).clamp(0, 1) * (self.bins - 1)
        # One place after the other: all at once would hold the frames so many times.
        shares = torch.stack([(1 - (places - place).abs()).clamp(min=0).mean((-2, -1)) for place in range(self.bins)])
        return torch.xlogy(shares, shares.clamp(min=torch.finfo(shares.dtype).tiny)).sum(0).mean()


class RegularisedLoss(nn.Module):
    """(1 - weight) times an error, plus weight times a regulariser of the prediction.

    What the published code trains its colouriser with is `RegularisedLoss(TotalVariation(), weight=0.1)` in its last
    version, `(SoftmaxEntropy(), weight=0.4)` in the first two, and `(TotalVariation(), weight=0.2, keep_error=True)` in
    the third.

    Args:
        regulariser: called with the prediction.
        weight: of the regulariser, in [0, 1].
        error: called with the prediction and the target; None is the mean squared error.
        keep_error: don't multiply the error by 1 - weight.

    Raises:
        TypeError, ValueError: an argument other than that.
    """

    def __init__(
        self, regulariser: nn.Module, *, weight: float = 0.1, error: nn.Module | None = None, keep_error: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(regulariser, nn.Module):
            raise TypeError(f"regulariser must be a module such as TotalVariation(), got {describe(regulariser)}")
        self.regulariser = regulariser
        self.weight = check_number("weight", weight, minimum=0, maximum=1)
        self.error = nn.MSELoss() if error is None else error
        self.keep_error = check_bool("keep_error", keep_error)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), float, of equal shape."""
        error = self.error(prediction, target)
        return (error if self.keep_error else (1 - self.weight) * error) + self.weight * self.regulariser(prediction)


def _working(frames: Tensor) -> Tensor:
    if not isinstance(frames, Tensor) or not frames.is_floating_point():
        raise TypeError(f"frames must be a float tensor (..., C, H, W), got {describe(frames)}")
    if frames.ndim < 3 or not frames.numel():
        raise ValueError(f"frames must be (..., C, H, W) and hold a pixel at least, got {describe(frames)}")
    return frames.to(torch.promote_types(frames.dtype, torch.float32))
