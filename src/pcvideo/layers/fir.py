# SPDX-License-Identifier: Apache-2.0
"""Low-pass filters with a learnable cutoff, for halving and doubling without aliases (PPNV2, arXiv 2301.05421).

The published filter is no low-pass: its 25 taps of a 1-D filter, reshaped to 5x5, leave the vertical axis alone, and
its cutoff can't go below the new Nyquist frequency. `design="reshaped", bound="published"` gives it; all else is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_choice, check_int, check_number
from pcvideo.ops.fir import lowpass_taps, reshaped_taps, upfirdn2d

__all__ = ["FIRDownsample", "FIRUpsample", "LearnableFIR"]

# Where a fresh cutoff stands: as a share of the largest one, and as the published parameter.
_INITIAL_SHARE = 0.9
_PUBLISHED_LOGIT = 2.0


class LearnableFIR(nn.Module):
    """A centred low-pass filter for each channel, whose cutoff is learnt.

    Taps depend on the weights alone: whoever filters many images with the same weights calls `make_taps` once, and
    hands them to `forward`.

    Args:
        channels: channels of the inputs.
        taps: length of the filter along each axis, odd; the "reshaped" one has 5.
        design: "separable", one windowed sinc along each axis; "radial", a windowed jinc; or "reshaped", as published.
        window: "kaiser" or "hamming".
        beta: of the Kaiser window.
        max_cutoff: the largest cutoff, in units of the Nyquist frequency, in (0, 1]. The cutoff is `max_cutoff *
            sigmoid(q)`, which starts at 0.9 of it.
        bound: "max_cutoff"; or "published", sigmoid(LeakyReLU(q)), which starts at 0.88 and can't go much below 0.5.
        learnable: False keeps the cutoff where it starts, and has no parameters.
        border: what images are extended by: "replicate", "reflect" or "zeros".

    Shape: (B, channels, H, W) -> the same.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    up, down = 1, 1
    fixed_taps: Tensor

    def __init__(
        self,
        channels: int,
        taps: int = 9,
        *,
        design: str = "separable",
        window: str = "kaiser",
        beta: float = 4.0,
        max_cutoff: float = 1.0,
        bound: str = "max_cutoff",
        learnable: bool = True,
        border: str = "replicate",
    ) -> None:
        super().__init__()
        self.channels, self.taps = check_int("channels", channels), check_int("taps", taps, minimum=3)
        if taps % 2 == 0:
            raise ValueError(f"taps must be odd, so that the filter has a centre, got {taps}; take {taps + 1}")
        self.design = check_choice("design", design, ("separable", "radial", "reshaped"))
        if design == "reshaped":
            self.taps = 5
        self.window = check_choice("window", window, ("kaiser", "hamming"))
        self.beta = check_number("beta", beta, minimum=0)
        self.max_cutoff = check_number("max_cutoff", max_cutoff, minimum=1e-3, maximum=1)
        self.bound = check_choice("bound", bound, ("max_cutoff", "published"))
        self.learnable = check_bool("learnable", learnable)
        self.border = check_choice("border", border, ("replicate", "reflect", "zeros"))
        start = _PUBLISHED_LOGIT if bound == "published" else math.log(_INITIAL_SHARE / (1 - _INITIAL_SHARE))
        logit = torch.full((channels,), start)
        if learnable:
            self.cutoff_logit = nn.Parameter(logit)
        else:
            # Known from the arguments, so neither is saved.
            self.register_buffer("cutoff_logit", logit, persistent=False)
            self.register_buffer("fixed_taps", self._taps_of(self.cutoff).to(logit.dtype), persistent=False)

    @property
    def cutoff(self) -> Tensor:
        """The cutoffs (channels,), in units of the Nyquist frequency; float32 at least."""
        logit = self.cutoff_logit.to(torch.promote_types(self.cutoff_logit.dtype, torch.float32))
        if self.bound == "published":
            return torch.sigmoid(F.leaky_relu(logit, 0.01))
        return self.max_cutoff * torch.sigmoid(logit)

    def make_taps(self) -> Tensor:
        """The taps (channels, N) or (channels, N, N) in the dtype of the weights, as `upfirdn2d` takes them."""
        if self.learnable:
            return self._taps_of(self.cutoff).to(self.cutoff_logit.dtype)
        return self.fixed_taps

    def _taps_of(self, cutoff: Tensor) -> Tensor:
        if self.design == "reshaped":
            return reshaped_taps(cutoff)
        return lowpass_taps(cutoff, self.taps, design=self.design, window=self.window, beta=self.beta)

    def forward(self, inputs: Tensor, taps: Tensor | None = None) -> Tensor:
        """Filter the inputs, with taps from `make_taps` where they are given."""
        taps = self.make_taps() if taps is None else taps
        return upfirdn2d(inputs, taps, up=self.up, down=self.down, border=self.border, gain=float(self.up**2))

    def extra_repr(self) -> str:
        """The filter in words."""
        words = [str(self.channels), f"taps={self.taps}", f"design={self.design!r}"]
        # The published filter has its window, and the published bound its limit.
        words += [] if self.design == "reshaped" else [f"window={self.window!r}", f"beta={self.beta:.4g}"]
        words += [f"bound={self.bound!r}"] if self.bound == "published" else [f"max_cutoff={self.max_cutoff:.4g}"]
        return ", ".join([*words, f"learnable={self.learnable}", f"border={self.border!r}"])


class FIRDownsample(LearnableFIR):
    """Filter, and keep every `factor`-th row and column, from the first.

    Args:
        channels, taps, design, window, beta, bound, learnable, border: as in `LearnableFIR`.
        factor: how many times fewer rows and columns.
        max_cutoff: None is `1 / factor`, the new Nyquist frequency.

    Shape: (B, channels, H, W) -> (B, channels, ceil(H / factor), ceil(W / factor)).
    """

    def __init__(
        self,
        channels: int,
        taps: int = 9,
        *,
        factor: int = 2,
        design: str = "separable",
        window: str = "kaiser",
        beta: float = 4.0,
        max_cutoff: float | None = None,
        bound: str = "max_cutoff",
        learnable: bool = True,
        border: str = "replicate",
    ) -> None:
        super().__init__(
            channels,
            taps,
            design=design,
            window=window,
            beta=beta,
            max_cutoff=1 / check_int("factor", factor) if max_cutoff is None else max_cutoff,
            bound=bound,
            learnable=learnable,
            border=border,
        )
        self.down = check_int("factor", factor)


class FIRUpsample(LearnableFIR):
    """Insert zeros between rows and columns, and filter their spectral images away, with a gain of `factor ** 2`.

    Each phase of the taps is made to sum to the same, so that a plain image stays plain.

    Args:
        channels, taps, design, window, beta, bound, learnable, border: as in `LearnableFIR`.
        factor: how many times more rows and columns.
        max_cutoff: None is `1 / factor`, the old Nyquist frequency.

    Shape: (B, channels, H, W) -> (B, channels, H * factor, W * factor).
    """

    def __init__(
        self,
        channels: int,
        taps: int = 9,
        *,
        factor: int = 2,
        design: str = "separable",
        window: str = "kaiser",
        beta: float = 4.0,
        max_cutoff: float | None = None,
        bound: str = "max_cutoff",
        learnable: bool = True,
        border: str = "replicate",
    ) -> None:
        # Fixed taps are made in the constructor.
        self.up = check_int("factor", factor)
        super().__init__(
            channels,
            taps,
            design=design,
            window=window,
            beta=beta,
            max_cutoff=1 / check_int("factor", factor) if max_cutoff is None else max_cutoff,
            bound=bound,
            learnable=learnable,
            border=border,
        )

    def _taps_of(self, cutoff: Tensor) -> Tensor:
        taps, up = super()._taps_of(cutoff), self.up
        # Along each axis, an output sample meets every `up`-th tap.
        phase = [tap % up for tap in range(taps.shape[-1])]
        if taps.ndim == 2:
            sums = torch.stack([taps[:, first::up].sum(1) for first in range(up)], dim=1)
            return taps / (up * sums[:, phase])
        rows = torch.stack([taps[:, first::up].sum(1) for first in range(up)], dim=1)
        sums = torch.stack([rows[:, :, first::up].sum(2) for first in range(up)], dim=2)
        return taps / (up**2 * sums[:, phase][:, :, phase])
