# SPDX-License-Identifier: Apache-2.0
"""From a finished run to a weights folder, and from all weights folders to the Hub.

Round to 16 bit, score what was rounded, draw a prediction, write card, checksums and catalog entry:

    python examples/training/publish.py mspn-moving-mnist runs/mspn-moving-mnist src/pcvideo/weights --data FOLDER
    python examples/training/publish.py mspn-natural runs/mspn-natural src/pcvideo/weights --data FOLDER
    python examples/training/publish.py ppnv2-natural runs/ppnv2-natural src/pcvideo/weights --data FOLDER
    python examples/training/publish.py wavelet-vfi runs/wavelet-vfi/dynamic src/pcvideo/weights --data FOLDER

FOLDER is what `pcvideo evaluate --data` takes: MNIST's IDX files, or the folder of videos. Write the card of weights
that are there already anew, tensors and figures as they are:

    python examples/training/publish.py mspn-natural --data FOLDER

Publish the built-in weights and those of `weights/`, each as ORGANISATION/name, and pin their commits in the catalog:

    hf auth login
    python examples/training/publish.py --push ORGANISATION
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pcvideo
from pcvideo.cli.main import main as command_line
from pcvideo.hub import known, publish_folder, write_weights_folder
from pcvideo.hub.known import CARD_NAME
from pcvideo.hub.publish import record, renew_card
from pcvideo.metrics import score_middles
from pcvideo.training import newest_checkpoint

HERE = Path(__file__).parent
_NATURAL: dict[str, Any] = {
    "task": "Predicts the next frames of a person signing or of a street seen from above, 64x80 colour",
    "data": "14 signing clips and car-detection of intel-iot-devkit/sample-videos (CC BY 4.0), resized to 64x80; "
    "two more signing clips chose the step; scored on the clips walk, want, yes and thanks, kept apart from training.",
    "licence": "Apache-2.0",
    "evaluation": "--dataset videos --size 64 80 --stride 5 --include walk want yes thanks",
}
FACTS: dict[str, dict[str, Any]] = {
    "mspn-moving-mnist": {
        "task": "Predicts the next frames of two moving digits, 64x64 grey",
        "data": "Moving MNIST (Srivastava et al. 2015) generated from the 60,000 training digits of MNIST (LeCun, "
        "Cortes, Burges; usually cited as CC BY-SA 3.0); scored on clips of the 10,000 test digits.",
        "datasets": ["ylecun/mnist"],
        "licence": "Apache-2.0",
        "evaluation": "--dataset moving-mnist --clips 1000 --seed 0",
    },
    "mspn-natural": _NATURAL,
    "ppnv2-natural": _NATURAL,
    "wavelet-vfi": {
        "task": "Finds the frame between two frames of a person signing, of an animation or of a street",
        "data": "14 signing clips and car-detection of intel-iot-devkit/sample-videos (CC BY 4.0), 30 s of Big Buck "
        "Bunny (Blender Foundation, CC BY 3.0), and photographs that come with scikit-image (public domain or CC0), "
        "moved by known flows; scored on every second frame of the clips walk, "
        "want, yes and thanks at 240x320, kept apart from training.",
        "licence": "Apache-2.0",
        "command": "python examples/training/wavelet_vfi.py --data FOLDER",
        "size": [240, 320],
        "history": "the motion stage's first 1,013 steps weighed known flows with 0.02, not with 0.1, and were begun "
        "as of 4,000; up to step 2,769 it was to have 3,500, which the learning rate followed",
    },
}
TESTED = ("walk", "want", "yes", "thanks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=FACTS)
    parser.add_argument("run_dir", nargs="?", type=Path)
    parser.add_argument("shelf", nargs="?", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--push", metavar="ORGANISATION")
    parser.add_argument("--private", action="store_true")
    options = parser.parse_args()
    if options.push:
        push(options.push, private=options.private)
    elif options.name is None or options.data is None or (options.run_dir is None) != (options.shelf is None):
        parser.error("give a name and --data, with or without a run's folder and a shelf; or --push ORGANISATION")
    elif options.run_dir is None:
        folder = next(shelf / options.name for shelf in known.shelves() if (shelf / options.name).is_dir())
        renew_card(
            folder, datasets=FACTS[options.name].get("datasets", ()), picture=example(options.name, options.data)
        )
        record(folder)
    else:
        pack(options.name, options.run_dir, options.shelf, options.data)


def pack(name: str, run_dir: Path, shelf: Path, data: str) -> None:
    facts, folder = FACTS[name], shelf / name
    model = pcvideo.from_pretrained(newest_checkpoint(run_dir) if name == "wavelet-vfi" else run_dir / "best")
    card = {key: facts[key] for key in ("task", "data", "datasets", "licence") if key in facts}
    card["recipe"] = between_recipe(facts, run_dir) if name == "wavelet-vfi" else forecast_recipe(name)
    write_weights_folder(model, folder, **card)
    results = score_between(folder, data) if name == "wavelet-vfi" else score_forecasts(folder, data, facts)
    write_weights_folder(model, folder, metrics=results, picture=example(name, data), **card)
    record(folder)


def forecast_recipe(name: str) -> dict[str, Any]:
    settings = tomllib.loads((HERE / f"{name}.toml").read_text())
    return {
        "command": f"pcvideo train --config examples/training/{name}.toml",
        "size": settings.get("size", [64, 64]),
        "context": settings["context"],
        "horizon": settings["horizon"],
        "steps": settings["steps"],
        "batch": settings["batch"],
    }


def score_forecasts(folder: Path, data: str, facts: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "evaluation.json"
        where = ["--model", str(folder), "--data", data, "--json", str(out)]
        if status := command_line(["evaluate", *where, *facts["evaluation"].split()]):
            sys.exit(status)
        return json.loads(out.read_text())


def between_recipe(facts: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """What the run folders of the three stages say."""
    recipe = {key: facts[key] for key in ("command", "size")}
    for stage in ("motion", "static", "dynamic"):
        settings = json.loads((run_dir.parent / stage / "run.json").read_text())["settings"]
        recipe[stage] = f"{settings['steps']} steps of {settings['batch_size']} crops, rate {settings['lr']:g}"
    return recipe | {"history": facts["history"]}


def score_between(folder: Path, data: str) -> dict[str, Any]:
    """The figures of the stored weights in both protocols: by their own choice, and with each threshold."""
    model = pcvideo.from_pretrained(folder)
    triplets = pcvideo.data.VideoTriplets(data, include=TESTED, size=(240, 320), stride=2, cache=True)
    ways = {"model": model, **{f"threshold {value:g}": partial(model, threshold=value) for value in model.thresholds}}
    results = {}
    for protocol in ("standard", "wavelet_vfi"):
        with torch.no_grad():
            report = score_middles((triplet[None] for triplet in triplets), ways, protocol, leave_out=())
        middles = report["middles"]
        results[protocol] = {"metrics": middles.pop("model"), **middles}
    return results


def example(name: str, data: str) -> Tensor:
    """The test clip (20, C, H, W) that the card shows; of an interpolator, a triplet of each, (12, C, H, W)."""
    if name == "wavelet-vfi":
        clips = [pcvideo.data.VideoFolder(data, length=3, stride=1, include=[clip]) for clip in TESTED]
        return torch.cat(
            [max(clip, key=lambda triplet: float((triplet[2] - triplet[0]).abs().mean())) for clip in clips]
        )
    if name == "mspn-moving-mnist":
        digits = pcvideo.data.read_idx(pcvideo.data.find_mnist(data, "test"))
        return pcvideo.data.MovingMNIST(digits, clips=1, seed=0)[0]
    return pcvideo.data.VideoFolder(data, length=20, size=(64, 80), include=["walk"])[0]


def motion(triplet: Tensor) -> float:
    return float((triplet[2] - triplet[0]).abs().mean())


def push(organisation: str, *, private: bool) -> None:
    for shelf in known.shelves():
        for folder in sorted(path.parent for path in shelf.glob(f"*/{CARD_NAME}")):
            repository = f"{organisation}/{folder.name}"
            commit = publish_folder(folder, repository, private=private)
            record(folder, repository, commit)
            print(f"{repository} at {commit}")


if __name__ == "__main__":
    main()
