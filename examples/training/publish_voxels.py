# SPDX-License-Identifier: Apache-2.0
"""From finished runs on scenes of voxels to a weights folder: round to 16 bit, score what was rounded, write the card.

    WHAT="convlstm-voxels runs/large src/pcvideo/weights --average-with runs/volumes"
    python examples/training/publish_voxels.py $WHAT
    for F in 80/4 40/2 20/1; do
        python benchmarks/score_voxels.py --data voxel4d/test_400_packed.npz --format $F \\
            --model src/pcvideo/weights/convlstm-voxels --json > ${F%/*}.json
    done
    python examples/training/publish_voxels.py $WHAT \\
        --scores 80/4=80.json 40/2=40.json 20/1=20.json --command "WHAT TRAINED THEM" --spent "HOW LONG"
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pcvideo
from pcvideo.data import VoxelScenes, make_scene
from pcvideo.hub import write_weights_folder
from pcvideo.hub.publish import record
from pcvideo.metrics import copy_last
from pcvideo.training import newest_checkpoint
from pcvideo.viz import save_surface_strip

TASKS = {
    "convlstm-voxels": "Next volume of a binary scene of 16^3 voxels (cavities over time), at any step through time",
    "aencgan3d-voxels": "Next volume of a binary scene of 16^3 voxels (cavities over time), every fourth step of 128",
}
DATA = (
    "4-D cavities, of github.com/Marchine85/4D-Predictive-GAN-ConvLSTM: every 8th of the published training scenes, "
    "3,200 in all (MIT; base data arXiv 2306.14442), with the 48 symmetries of the cube and time reversal"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--average-with", type=Path, nargs="+", default=(), metavar="RUN", help="mean of the weights")
    parser.add_argument("--scores", nargs="+", default=(), metavar="FORMAT=JSON")
    parser.add_argument("--command", default="")
    parser.add_argument("--spent", default="")
    options = parser.parse_args()
    model = mean_of([options.run_dir, *options.average_with])
    scores = dict(score.split("=", 1) for score in options.scores)
    metrics = {f"voxels {name}": figures(json.loads(Path(path).read_text())) for name, path in scores.items()}
    recipe = {"size": [16, 16, 16], "command": options.command, "spent": options.spent}
    folder = options.shelf / options.name
    with tempfile.TemporaryDirectory() as scratch:
        write_weights_folder(
            model,
            folder,
            task=TASKS[options.name],
            data=DATA,
            picture=picture(model, Path(scratch) / "prediction.png"),
            recipe={key: value for key, value in recipe.items() if value},
            licence="Apache-2.0, trained on MIT data",
            metrics=metrics or None,
        )
    record(folder)


def mean_of(run_dirs: Sequence[Path]) -> Any:
    """The model of the mean of several runs' weights, each the averaged ones of its last checkpoint."""
    models = [pcvideo.from_pretrained(newest_checkpoint(run_dir) or run_dir) for run_dir in run_dirs]
    states = [model.state_dict() for model in models]
    models[0].load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    return models[0]


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """A format's entry in the card, of what `score_voxels.py --json` wrote: one step, then each step of the carried."""
    carried, windows = report["carried"], report["windows"]
    return {
        "metrics": _row(windows["one_step"]["prediction"], carried["long_term"]["prediction"]),
        "copy_last": _row(windows["one_step"]["null"], windows["long_term"]["copy"]),
    }


def _row(one_step: dict[str, Any], long_term: dict[str, Any]) -> dict[str, float]:
    steps = {f"jaccard_{step + 1}": value for step, value in enumerate(long_term["jaccard"]["per_step"])}
    values = {"jaccard": one_step["jaccard"]["mean"], "mse_mean": one_step["mse_mean"]["mean"], **steps}
    return {name: round(value, 5) for name, value in values.items()}


def picture(model: pcvideo.models.Predictor, path: Path) -> Path:
    """A generated scene, five steps ahead: truth, prediction and copy-last."""
    scene = VoxelScenes(make_scene(5, objects=8).volumes[None], format="80/4")[0]
    seen, truth = scene[:5], scene[5:10]
    rows = {"truth": truth, "prediction": model.predict(seen, 5), "copy-last": copy_last(seen[None], 5)[0]}
    save_surface_strip(path, rows)
    return path


if __name__ == "__main__":
    main()
