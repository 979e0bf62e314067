# SPDX-License-Identifier: Apache-2.0
"""The model card: what the Hub indexes, then the facts for people; generated, so that no figure is copied by hand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcvideo._hub_client import card_metadata

__all__ = ["model_card", "refuse_tokens"]

_TAGS = ("video-prediction", "predictive-coding")
_TAGS_BETWEEN = ("video-interpolation", "frame-interpolation")
# Of the tasks that the Hub files models under, the one that comes nearest.
_PIPELINE = "video-to-video"
# What each model that is no predictor is called with; its task is known by its class alone.
_INTERPOLATE = 'frames = model.interpolate("clip.mp4", factor=2)  # (2 * T - 1, C, H, W) in [0, 1]'
_CALLS = {
    "WaveletVFI": _INTERPOLATE,
    "FrameDoubler": _INTERPOLATE,
    "Grey2RGB": 'colour = model.colourise("clip.mp4", to_grey=True)  # (T, 3, H, W) in [0, 1]',
}
_PREDICT = 'future = model.predict("clip.mp4", horizon=10)  # (10, C, H, W) in [0, 1]'
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def model_card(
    name: str,
    model: str,
    parameters: int,
    dtype: str,
    facts: Mapping[str, Any],
    *,
    own: bool,
    interpolates: bool = False,
) -> str:
    """The text of a folder's `README.md`.

    Args:
        name: what `from_pretrained` takes: the weights' name, or the repository's.
        model: name of the class.
        parameters: how many.
        dtype: that the tensors are stored in.
        facts: the content of `card.json`.
        own: the class is one of the user's, which loads by itself.
        interpolates: it finds what came between frames, not what comes next.
    """
    licence = facts.get("licence")
    head = card_metadata(
        name=name,
        tags=[*(_TAGS_BETWEEN if interpolates else _TAGS), model.lower()],
        pipeline=_PIPELINE,
        licence=_indexed(str(licence)) if licence else None,
        datasets=facts.get("datasets") or [],
        figures=list(_figures(facts)),
    )
    lines = [head, "", f"# {name}", ""]
    lines += [f"{facts.get('task') or 'A video predictor'}. {model}, {parameters:,} parameters, stored as {dtype}.", ""]
    if facts.get("picture"):
        shown = "Middle frames" if interpolates else "A prediction"
        lines += [f"![{shown} of this model]({facts['picture']})", ""]
    lines += [
        "```python",
        "import pcvideo" if not own else f"# {model} is a class of its author's, built on pcvideo.",
        "",
        f'model = {model if own else "pcvideo"}.from_pretrained("{name}")',
        _CALLS.get(model, _PREDICT),
        "```",
        "",
        f"**Data.** {facts.get('data') or 'Not stated.'}",
        "",
        f"**Licence.** {licence or 'Not stated.'}",
    ]
    if facts.get("sha256"):
        lines += ["", f"**Checksum** of `model.safetensors` (sha256): `{facts['sha256']}`"]
    lines += ["", "**Recipe.**", ""]
    lines += [f"- {key}: {value}" for key, value in (facts.get("recipe") or {}).items()] or ["Not stated."]
    lines += ["", *_results(facts.get("metrics") or {})]
    return "\n".join(lines).rstrip() + "\n"


def refuse_tokens(facts: Any, token: str | bool | None = None) -> None:
    """Refuse facts that hold an access token of the Hub, as a command that was copied whole may.

    Raises:
        ValueError: one does; the message says where, and not what.
    """
    secrets = {os.environ.get(name) for name in _TOKEN_VARIABLES} | {token if isinstance(token, str) else None}
    secrets -= {None, ""}
    for path, text in _strings(facts):
        if _TOKEN.search(text) or any(secret in text for secret in secrets if secret):
            raise ValueError(f"the card's {path} holds an access token, which everyone could then use; leave it out")


def _indexed(licence: str) -> str:
    """The licence's name in the Hub's index, which knows those of SPDX; terms of one's own are `other`."""
    first = licence.split(maxsplit=1)[0].lower().rstrip(",;")
    return first if re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)+|mit|isc|zlib|unlicense|wtfpl|openrail", first) else "other"


def _results(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["**Figures.** None were given."]
    lines = []
    for protocol, results in metrics.items():
        lines += [f"**Protocol `{protocol}`**", "", *_table(results), ""]
    return lines


def _table(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table: a row for the model, one for each baseline."""
    rows = {"metrics": results["metrics"], **results}
    columns = list(results["metrics"])
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in rows.items():
        cells = ["-" if figures.get(column) is None else f"{figures[column]:.4g}" for column in columns]
        lines.append(f"| {'this model' if name == 'metrics' else name} | {' | '.join(cells)} |")
    if len(rows) == 1:
        lines += ["", "No baseline was given to compare with."]
    return lines


def _figures(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The model's own figures, for the Hub's index; what can't be computed is left out."""
    words = re.split(r"[(;,.]", facts.get("data") or "")[0].strip()
    for protocol, results in (facts.get("metrics") or {}).items():
        for metric, value in results["metrics"].items():
            if value is not None:
                figure = {"metric": metric, "value": value, "protocol": protocol}
                yield figure | {"data": words[:80] or "not stated"}


def _strings(value: Any, path: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(str(key), [*path, "key"])
            yield from _strings(item, [*path, "..." if _TOKEN.search(str(key)) else str(key)])
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, [*path, str(index)])
    elif isinstance(value, str):
        yield ".".join(path), value
