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
from pcvideo.video_io import iter_frames, read_window, to_grey

TESTED = ("walk", "want", "yes", "thanks")
_DATA = (
    "14 signing clips and car-detection of intel-iot-devkit/sample-videos (CC BY 4.0){more}, at 640x480; two more "
    "signing clips chose the step; scored on the clips walk, want, yes and thanks, kept apart from both (the clips, "
    "not the people). "
)
FACTS: dict[str, dict[str, Any]] = {
    "frame-doubler": {
        "task": "Twice the frames of a grey video, each middle frame found with what came before",
        "data": _DATA.format(more=" and chaplin (public domain)")
        + "It has seen people signing, a street from above and an old film; what moves further than about 30 "
        "pixels from frame to frame, or behind something else, it blends. Where nothing moves, it adds a little noise.",
        "command": "python examples/training/fusion.py --data FOLDER --method 4 --only doubling --doubling-steps 1200 "
        "--every 50",
        "spent": "one thread of a CPU shared by many: 40 minutes by the clock, some 9 of processor time",
        "licence": "Apache-2.0",
    },
    "grey2rgb": {
        "task": "Colours for grey video whose luminance is kept",
        "data": _DATA.format(more="")
        + "It has seen a few people in one room, and a street from above: its colours are faint, those of skin and "
        "wall at their places, those of clothes guesses; and it gives them to whatever it is shown. For other "
        "pictures, train it on colour videos of their kind.",
        "command": "python examples/training/fusion.py --data FOLDER --method 1 --only colour --colour-steps 1500 "
        "--crop 192 --batch 8 --colour-lr 4e-3",
        "spent": "one thread of a CPU shared by many, some 3 minutes of processor time",
        "licence": "Apache-2.0",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FACTS)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--card", action="store_true", help="card and picture anew; tensors and figures as they are")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, facts = options.shelf / options.name, FACTS[options.name]
    model = pcvideo.from_pretrained(folder if options.card else options.run_dir / "best")
    settings = json.loads((options.run_dir / "run.json").read_text())["settings"]
    recipe = {
        "size": [480, 640],
        "command": facts["command"],
        "steps": settings["steps"],
        "batch": settings["batch_size"],
        "learning rate": settings["lr"],
        "spent": facts["spent"],
    }
    card = {key: facts[key] for key in ("task", "data", "licence")} | {"recipe": recipe}
    metrics = json.loads((folder / "card.json").read_text())["metrics"] if options.card else None
    write_weights_folder(model, folder, **card)
    stored = pcvideo.from_pretrained(folder)
    is_doubler = options.name == "frame-doubler"
    if metrics is None:
        metrics = {"standard": (score_doubler if is_doubler else score_colouriser)(stored, options.data)}
    rows = (doubled if is_doubler else coloured)(stored, options.data)
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "prediction.png"
        draw(rows).save(picture, optimize=True)
        write_weights_folder(model, folder, metrics=metrics, picture=picture, **card)
    record(folder)


def score_doubler(model: pcvideo.FrameDoubler, data: Path) -> dict[str, Any]:
    clips = (torch.stack(list(iter_frames(data / f"{name}.mkv", channels=1, to_grey=True))) for name in TESTED)
    report = score_doubling(clips, lambda frames: model.interpolate(frames, cut=None)[:, 1::2])
    names = {"model": "metrics", "average_frames": "blend", "copy_before": "repetition"}
    return {names[way]: figures for way, figures in report["middles"].items()}


def doubled(model: pcvideo.FrameDoubler, data: Path) -> dict[str, Tensor]:
    seen = read_window(data / "walk.mkv", 24, 9, channels=1, to_grey=True)
    middles, truth = model.interpolate(seen[::2], cut=None)[1::2], seen[1::2]
    blend = (seen[:-2:2] + seen[2::2]) / 2
    rows = {
        "given": seen[:-2:2],
        "true": truth,
        "found": middles,
        "blend": blend,
        "|found - true|": 1 - 3 * (middles - truth).abs(),
        "|blend - true|": 1 - 3 * (blend - truth).abs(),
    }
    return {name: frames[..., 80:400, 140:500].clamp(0, 1) for name, frames in rows.items()}


def score_colouriser(model: pcvideo.Grey2RGB, data: Path) -> dict[str, Any]:
    frames = (frame[None] for name in TESTED for frame in iter_frames(data / f"{name}.mkv", step=4))
    figures = score_colours(frames, model)["colours"]
    return {"metrics": figures["model"], "grey": figures["grey"]}


def coloured(model: pcvideo.Grey2RGB, data: Path) -> dict[str, Tensor]:
    shown = torch.stack([read_window(data / f"{name}.mkv", 30, 1)[0] for name in TESTED])
    grey = to_grey(shown)
    return {"given": grey, "true": shown, "found": model.colourise(grey)}


def draw(rows: dict[str, Tensor], *, width: int = 160) -> Image.Image:
    """Rows of pictures with a name before each."""
    margin, gap = 110, 3
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
    return picture if any(frames.shape[1] == 3 for frames in rows.values()) else picture.convert("L")


if __name__ == "__main__":
    main()
