# SPDX-License-Identifier: Apache-2.0
"""The two ways a metric can fail without anything being wrong with the predictions."""

from __future__ import annotations

__all__ = ["FrameTooSmall", "MetricUnavailable"]


class MetricUnavailable(RuntimeError):  # noqa: N818 - it is a finding, not a fault
    """A metric cannot be computed here; the message gives the reason and the mend.

    [`PerStep`][pcvideo.metrics.PerStep] reports such a metric as null, beside the reason.
    """


class FrameTooSmall(MetricUnavailable, ValueError):  # noqa: N818 - as above
    """The frames are smaller than the metric's window or network can take."""
