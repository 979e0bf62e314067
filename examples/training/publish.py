# SPDX-License-Identifier: Apache-2.0
"""From a finished run to a weights folder: round to 16 bit, score what was rounded, write the card.

    python examples/training/publish.py mspn-moving-mnist runs/mspn-moving-mnist src/pcvideo/weights --data FOLDER
    python examples/training/publish.py mspn-natural runs/mspn-natural src/pcvideo/weights --data FOLDER
    python examples/training/publish.py ppnv2-natural runs/ppnv2-natural src/pcvideo/weights --data FOLDER

FOLDER is what `pcvideo evaluate --data` takes: MNIST's IDX files, or the folder of videos.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from pathlib import Path

import pcvideo
from pcvideo.cli.main import main as command_line
from pcvideo.hub import write_weights_folder

HERE = Path(__file__).parent
_NATURAL = {
    "task": "Predicts the next frames of a person signing or of a street seen from above, 64x80 colour",
    "data": "14 signing clips and car-detection of intel-iot-devkit/sample-videos (CC BY 4.0), resized to 64x80; "
    "two more signing clips chose the step; scored on the clips walk, want, yes and thanks, kept apart from both.",
    "licence": "Apache-2.0",
    "evaluation": "--dataset videos --size 64 80 --stride 5 --include walk want yes thanks",
}
FACTS = {
    "mspn-moving-mnist": {
        "task": "Predicts the next frames of two moving digits, 64x64 grey",
        "data": "Moving MNIST (Srivastava et al. 2015) generated from the 60,000 training digits of MNIST (LeCun, "
        "Cortes, Burges; usually cited as CC BY-SA 3.0); scored on clips of the 10,000 test digits.",
        "licence": "Apache-2.0",
        "evaluation": "--dataset moving-mnist --clips 1000 --seed 0",
    },
    "mspn-natural": _NATURAL,
    "ppnv2-natural": _NATURAL,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FACTS)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--data", required=True)
    options = parser.parse_args()
    facts = FACTS[options.name]
    settings = tomllib.loads((HERE / f"{options.name}.toml").read_text())
    recipe = {
        "command": f"pcvideo train --config examples/training/{options.name}.toml",
        "size": settings.get("size", [64, 64]),
        "context": settings["context"],
        "horizon": settings["horizon"],
        "steps": settings["steps"],
        "batch": settings["batch"],
    }
    folder = options.shelf / options.name
    model = pcvideo.from_pretrained(options.run_dir / "best")
    card = {key: facts[key] for key in ("task", "data", "licence")} | {"recipe": recipe}
    write_weights_folder(model, folder, **card)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "evaluation.json"
        command_line(
            [
                "evaluate",
                "--model",
                str(folder),
                "--data",
                options.data,
                "--json",
                str(out),
                *facts["evaluation"].split(),
            ]
        )
        results = json.loads(out.read_text())["protocols"]
    figures = {
        protocol: {key: report[key] for key in ("metrics", "copy_last", "black")}
        for protocol, report in results.items()
    }
    write_weights_folder(model, folder, metrics=figures, **card)


if __name__ == "__main__":
    main()
