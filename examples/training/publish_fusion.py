# SPDX-License-Identifier: Apache-2.0
"""From finished runs of `fusion.py` to weights folders: round to 16 bit, score what was rounded, draw, write the card.

    python examples/training/publish_fusion.py frame-doubler runs/fusion/doubling-ssim-seed0 src/pcvideo/weights \
        --data FOLDER
    python examples/training/publish_fusion.py grey2rgb runs/fusion/colour-mse-seed0 src/pcvideo/weights --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import pcvideo
from pcvideo.hub import write_weights_folder
from pcvideo.hub.publish import record
from pcvideo.metrics import score_colours, score_doubling
from pcvideo.training import newest_checkpoint
from pcvideo.video_io import iter_frames, read_window, to_grey

TESTED = ("walk", "want", "yes", "thanks")
_DATA = (
    "14 signing clips and car-detection of intel-iot-devkit/sample-videos (CC BY 4.0){more}, at 640x480; two more "
    "signing clips chose the step; scored on the clips walk, want, yes and thanks, kept apart from both. "
)
FACTS: dict[str, dict[str, Any]] = {
    "frame-doubler": {
        "task": "Twice the frames of a grey video, each middle frame found with what came before",
        "data": _DATA.format(more=" and chaplin (public domain)")
        + "It has seen one person signing, a street from above and an old film; what moves further than about 30 "
        "pixels from frame to frame, or behind something else, it blends.",
        "licence": "Apache-2.0",
    },
    "grey2rgb": {
        "task": "Colours for grey video whose luminance is kept",
        "data": _DATA.format(more="")
        + "It has seen the skin, the clothes and the wall of one person's clips, and a street from above: it gives "
        "these tones to whatever it is shown. For other pictures, train it on colour videos of their kind.",
        "licence": "Apache-2.0",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FACTS)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--last", action="store_true", help="the newest checkpoint, not the best step")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = newest_checkpoint(options.run_dir) if options.last else options.run_dir / "best"
    run = json.loads((options.run_dir / "run.json").read_text())
    model = pcvideo.from_pretrained(source)
    settings = run["settings"]
    recipe = {
        "size": [480, 640],
        "command": "python examples/training/fusion.py --data FOLDER, see docs/fusion.md",
        "steps": settings["steps"],
        "batch": settings["batch_size"],
        "learning rate": settings["lr"],
    }
    folder, card = options.shelf / options.name, FACTS[options.name] | {"recipe": recipe}
    write_weights_folder(model, folder, **card)
    stored = pcvideo.from_pretrained(folder)
    rows, metrics = (doubling if options.name == "frame-doubler" else colours)(stored, options.data)
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "prediction.png"
        draw(rows).save(picture)
        write_weights_folder(model, folder, metrics=metrics, picture=picture, **card)
    record(folder)


def doubling(model: pcvideo.FrameDoubler, data: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    def clips():
        for name in TESTED:
            frames = iter_frames(data / f"{name}.mkv", channels=1, to_grey=True)
            yield torch.stack(list(frames))

    def double(frames: Tensor) -> Tensor:
        return model.interpolate(frames, cut=None)[:, 1::2]

    report = score_doubling(clips(), double)
    seen = read_window(data / "walk.mkv", 24, 9, channels=1, to_grey=True)
    middles = double(seen[None, ::2])[0]
    blend = (seen[:-2:2] + seen[2::2]) / 2
    part = slice(80, 400), slice(140, 500)
    rows = {
        "given": seen[:-2:2],
        "true": seen[1::2],
        "found": middles,
        "blend": blend,
        "|found - true|": 1 - 3 * (middles - seen[1::2]).abs(),
        "|blend - true|": 1 - 3 * (blend - seen[1::2]).abs(),
    }
    names = {"model": "metrics", "average_frames": "blend", "copy_before": "repetition"}
    metrics = {names[way]: figures for way, figures in report["middles"].items()}
    return {name: frames[(..., *part)].clamp(0, 1) for name, frames in rows.items()}, {"standard": metrics}


def colours(model: pcvideo.Grey2RGB, data: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    def frames():
        for name in TESTED:
            for frame in iter_frames(data / f"{name}.mkv", step=4):
                yield frame[None]

    report = score_colours(frames(), model)
    shown = torch.stack([read_window(data / f"{name}.mkv", 30, 1)[0] for name in TESTED])
    grey = to_grey(shown)
    rows = {"given": grey, "true": shown, "found": model.colourise(grey)}
    figures = report["colours"]
    return rows, {"standard": {"metrics": figures["model"], "grey": figures["grey"]}}


def draw(rows: dict[str, Tensor], *, width: int = 240) -> Image.Image:
    """Rows of pictures with a name before each."""
    margin, gap = 120, 4
    first = next(iter(rows.values()))
    height = width * first.shape[-2] // first.shape[-1]
    picture = Image.new("RGB", (margin + len(first) * (width + gap), len(rows) * (height + gap)), "white")
    pen = ImageDraw.Draw(picture)
    for row, (name, frames) in enumerate(rows.items()):
        top = row * (height + gap)
        pen.text((8, top + height // 2 - 8), name, fill="black", font=ImageFont.load_default(14))
        for column, frame in enumerate(frames):
            pixels = (255 * frame.expand(3, -1, -1)).round().to(torch.uint8).permute(1, 2, 0).numpy()
            small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
            picture.paste(small, (margin + column * (width + gap), top))
    return picture


if __name__ == "__main__":
    main()
