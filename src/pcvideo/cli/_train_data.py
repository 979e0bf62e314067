# SPDX-License-Identifier: Apache-2.0
"""The clips that `pcvideo train` trains and validates on."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from pcvideo._checks import check_int
from pcvideo.cli._clips import GENERATED, generated_clips, own_clips
from pcvideo.data import ClipDataset

__all__ = ["training_clips"]

logger = logging.getLogger(__name__)


def training_clips(settings: Mapping[str, Any], channels: int) -> tuple[Any, Any]:
    """The clips to train and to validate on; None where there are none of the latter.

    Where nothing is named to validate on, a share of one's own videos is held out.

    Args:
        settings: those of the command.
        channels: of the model.

    Raises:
        FileNotFoundError, VideoError, ValueError, TypeError: as the data sets.
    """
    same = settings["val_data"] in (None, settings["data"])
    val_data = settings["val_data"]
    if val_data is None and (settings["data"] == GENERATED or settings["val_include"]):
        val_data = settings["data"]
    # What is validated on is never trained on.
    held_out = settings["val_include"] if same else ()
    train_clips = _clips(
        settings, settings["data"], channels, settings["include"], settings["exclude"] + held_out, training=True
    )
    if channels == 1 and settings["data"] != GENERATED:
        logger.info(
            "the model has one channel: colour videos are made grey (ITU-R BT.601); --in-channels 3 makes a colour "
            "model of it"
        )
    if val_data is None:
        return _hold_out(train_clips, settings["val_share"])
    names = settings["val_include"], settings["val_exclude"]
    return train_clips, _clips(settings, val_data, channels, *names, training=False)


def _hold_out(clips: ClipDataset, share: float) -> tuple[ClipDataset, ClipDataset | None]:
    """A share of the sources, evenly spread; of a single source, the last windows, which share no frame with others."""
    if not 0 <= share < 1:
        raise ValueError(f"val_share must be at least 0 and below 1, got {share}")
    sources = list(dict.fromkeys(window.path for window in clips.windows))
    if share == 0 or len(clips) < 2:
        logger.warning("nothing is validated on (--val-data, --val-include or --val-share name it)")
        return clips, None
    if len(sources) > 1:
        count = max(1, round(share * len(sources)))
        chosen = {sources[(2 * index + 1) * len(sources) // (2 * count)] for index in range(count)}
        held = [window for window in clips.windows if window.path in chosen]
        rest = [window for window in clips.windows if window.path not in chosen]
        what = ", ".join(str(getattr(source, "stem", f"clip {source}")) for source in sources if source in chosen)
    else:
        held = clips.windows[-max(1, round(share * len(clips))) :]
        first = min(window.start for window in held)
        rest = [each for each in clips.windows if each.start + (each.length - 1) * each.interval < first]
        what = f"the last {len(held)} windows"
    if not rest:
        logger.warning("nothing is validated on: all windows share frames with the last (--val-data names other clips)")
        return clips, None
    logger.info(
        "validated on %s, which nothing is trained on (--val-include, --val-data or --val-share say otherwise)", what
    )
    # One reader and one cache for both.
    train_clips, val_clips = copy.copy(clips), copy.copy(clips)
    train_clips.windows, val_clips.windows, val_clips.transform = rest, held, None
    return train_clips, val_clips


def _clips(
    settings: Mapping[str, Any],
    data: str,
    channels: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    *,
    training: bool,
) -> Any:
    length = check_int("context", settings["context"]) + check_int("horizon", settings["horizon"])
    if data != GENERATED:
        return own_clips(
            data,
            length=length,
            channels=channels,
            include=include,
            exclude=exclude,
            flip=settings["flip"] and training,
            **{name: settings[name] for name in ("size", "stride", "interval", "cache", "on_error", "seed")},
        )
    if include or exclude:
        raise ValueError(f"--include and --exclude are for videos, not for {GENERATED}")
    clips = generated_clips(
        settings["digits"],
        clips=settings["clips" if training else "validation_clips"],
        length=length,
        # Other clips than those that `pcvideo evaluate --seed` of the same number scores.
        seed=settings["seed"] + (not training),
        split="train" if training else "test",
        **{name: settings[name] for name in ("size", "num_digits", "speed")},
    )
    logger.info("%s on moving digits: %s", "train" if training else "validate", clips.source)
    return clips
