# SPDX-License-Identifier: Apache-2.0
"""What `predict`, `evaluate` and `train` do with scenes of voxels: `--dataset voxel4d`, or a model of volumes."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_int
from pcvideo._files import write_json
from pcvideo.cli._clips import batches, spread
from pcvideo.cli._common import device_of, load_model, print_json
from pcvideo.cli._train_model import read_model_config
from pcvideo.data import (
    VOXEL_FORMATS,
    Compose,
    CubeSymmetry,
    RandomTimes,
    TimeReverse,
    VoxelScenes,
    generate_scenes,
    make_scene,
)
from pcvideo.losses import VolumeLoss
from pcvideo.metrics import VolumeScores, copy_last
from pcvideo.models import Predictor, forecast_windows, next_frames
from pcvideo.models._catalog import architecture
from pcvideo.training import SelfFeeding, TeacherForced, Trainer
from pcvideo.video_io import SCENE_SUFFIXES, read_volumes
from pcvideo.viz import save_comparison_gif, save_strip, save_surface_gif, save_surface_strip, slice_frames, write_mesh

__all__ = ["DATASET", "MODEL", "add_format", "evaluate", "is_scene_file", "predict", "score", "train"]

logger = logging.getLogger(__name__)

DATASET, MODEL = "voxel4d", "convlstm-voxels"
_CONTEXT = _HORIZON = 5
# What the trainer calls by the same name.
_TRAINER_SETTINGS = (
    "steps",
    "lr",
    "optimizer",
    "weight_decay",
    "schedule",
    "warmup",
    "clip_norm",
    "ema",
    "precision",
    "seed",
    "num_workers",
    "validate_every",
    "checkpoint_every",
    "validation_clips",
    "keep",
    "max_bad_steps",
)
# A scene of eight cavities, of all kinds.
_BUILT_IN_SEED = 5
_GENERATED = f"eight cavities (generated, seed {_BUILT_IN_SEED})"
_TESTS = {"windows": "window of 5 anew", "carried": "state carried", "binary": "carried, fed back as 0 and 1"}


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add `--format`."""
    parser.add_argument(
        "--format", choices=tuple(VOXEL_FORMATS), default="80/4", help="voxel4d: frames of a scene / step through them"
    )


def is_scene_file(path: str | None) -> bool:
    """Whether a path is one of a file that holds nothing but scenes."""
    return path is not None and Path(path).suffix.lower() in SCENE_SUFFIXES


def evaluate(arguments: argparse.Namespace, model: Predictor) -> None:
    """Score a model of volumes as published, print the table and write the figures."""
    if model.spatial_dims != 3:
        raise ValueError(f"--dataset {DATASET} is for models of volumes; {arguments.model} is one of images")
    scenes = _scenes(arguments.data, arguments.format, arguments.clips or 100)
    indices = spread(len(scenes), arguments.clips)
    result = {
        "model": str(arguments.model),
        "dataset": DATASET,
        "data": None if arguments.data is None else str(arguments.data),
        "format": arguments.format,
        "clips": len(indices),
        **score(model, scenes, indices, arguments.batch),
    }
    if arguments.json not in (None, "-"):
        write_json(Path(arguments.json), result)
    if arguments.json == "-":
        print_json(result)
        return
    source = arguments.data or "generated cavities"
    print(f"{arguments.model} on {len(indices)} scenes of {source}, format {arguments.format}\n\n{_table(result)}")
    if arguments.json is not None:
        print(f"\nwritten: {arguments.json}")


def score(model: Predictor, scenes: VoxelScenes, indices: Sequence[int], batch: int) -> dict[str, Any]:
    """The published tests: one step, and five long-term steps by windows and by a carried state."""
    from tqdm import tqdm  # noqa: PLC0415

    scores = {name: VolumeScores(context=_CONTEXT, horizon=_HORIZON) for name in _TESTS}
    with tqdm(total=len(indices), unit="scene", leave=False, disable=not sys.stderr.isatty()) as bar:
        for frames in batches(scenes, indices, batch, model.device):
            one_step, seen = next_frames(model, frames), frames[:, :_CONTEXT]
            for name, scored in scores.items():
                options = {"carry": name != "windows", "binarize": name == "binary"}
                scored.update(frames, one_step, forecast_windows(model, seen, _HORIZON, **options))
            bar.update(len(frames))
    reports = {name: scored.report() for name, scored in scores.items()}
    first = reports["windows"]
    return {"one_step": first["one_step"], "long_term": {name: report["long_term"] for name, report in reports.items()}}


def predict(arguments: argparse.Namespace, model: Predictor) -> None:
    """Predict how a scene goes on, write pictures, meshes and figures, and say what came out."""
    horizon, context = arguments.horizon, arguments.context
    volumes = _volumes(arguments, context + horizon)
    held_out = len(volumes) > horizon
    seen = volumes[-context - horizon : -horizon] if held_out else volumes[-context:]
    truth = volumes[-horizon:] if held_out else None
    started = time.perf_counter()
    prediction = model.predict(seen, horizon).cpu()
    seconds = time.perf_counter() - started
    figures = None if truth is None else _compare(seen, prediction, truth)
    result = {
        "model": str(arguments.model),
        "clip": _GENERATED if arguments.clip is None else str(arguments.clip),
        "size": list(volumes.shape[-3:]),
        "context": len(seen),
        "horizon": horizon,
        "jaccard": figures,
        "seconds": round(seconds, 4),
        "files": _draw(arguments, seen, prediction, truth),
    }
    write_json(arguments.out / "metrics.json", result)
    if arguments.json:
        print_json(result)
        return
    size = "x".join(map(str, result["size"]))
    print(f"{result['model']}: {horizon} volumes of {size} predicted from {len(seen)} of {result['clip']}")
    if figures is None:
        print(f"no comparison: more than {horizon} volumes are needed to hold out the last {horizon}")
    else:
        print("\nJaccard distance of each step, 0 where they are alike")
        for name, values in figures.items():
            print(f"  {name:11s}" + " ".join(f"{value:.3f}" for value in values))
    print("\nwritten: " + ", ".join(result["files"].values()))


def train(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Train a model of volumes, then score its best weights."""
    device = device_of(settings["device"])
    torch.manual_seed(settings["seed"])
    model = _model(settings)
    length = settings["context"] + settings["horizon"]
    train_scenes = VoxelScenes(_data(settings["data"]), format=None, seed=settings["seed"])
    step = VOXEL_FORMATS[settings["format"]][1]
    times = RandomTimes(length, (step,), margin=min(14, (train_scenes.scenes.shape[0] - (length - 1) * step - 1) // 2))
    train_scenes.transform = Compose([times, TimeReverse(), CubeSymmetry()])
    val_scenes = None if settings["val_data"] is None else _scenes(settings["val_data"], settings["format"], 0)
    kind = SelfFeeding if settings["strategy"] == "self-feeding" else TeacherForced
    trainer = Trainer(
        model,
        kind(context=settings["context"], horizon=settings["horizon"], loss=VolumeLoss()),
        run_dir=settings["run_dir"],
        batch_size=settings["batch"],
        device=device,
        notes={"configuration": dict(settings)},
        **{name: settings[name] for name in _TRAINER_SETTINGS},
    )
    write_json(trainer.run_dir / "config-resolved.json", dict(settings))
    trainer.fit(train_scenes, val_scenes, resume=arguments.resume)
    best = trainer.run_dir / "best"
    if val_scenes is None:
        trainer.weights.save_pretrained(best)
    result: dict[str, Any] = {"model": str(best), "format": settings["format"], "steps": trainer.step}
    if val_scenes is not None:
        indices = range(min(len(val_scenes), settings["validation_clips"]))
        result |= score(load_model(best, device), val_scenes, indices, settings["batch"])
    write_json(trainer.run_dir / "metrics.json", result)
    if arguments.json:
        print_json(result)
        return
    if val_scenes is not None:
        print(f"{best} on the validation scenes, format {settings['format']}\n\n{_table(result)}\n")
    print(f"weights: {best}")


def _model(settings: Mapping[str, Any]) -> Predictor:
    if settings["init"] is not None:
        model = load_model(settings["init"], torch.device("cpu"))
    else:
        kind = architecture(settings["model"] or "ConvLSTMPredictor")
        model = kind.from_config(read_model_config(settings["model_config"], list(kind.__init__.__annotations__)))
    if model.spatial_dims != 3:
        raise ValueError(f"--dataset {DATASET} is for models of volumes: --model convlstmpredictor or aencgan3d")
    return model


def _data(data: str | None) -> str:
    if data in (None, "moving-mnist"):
        raise ValueError(f"--dataset {DATASET} needs --data, a packed .npz, a TFRecord file or a folder of these")
    return str(data)


def _scenes(data: Any, chosen: str, generated: int) -> VoxelScenes:
    """The scenes of a file or folder in a format; generated ones where there is none."""
    if data is None:
        return VoxelScenes(generate_scenes(generated, seed=0), format=chosen)
    return VoxelScenes(data, format=chosen)


def _volumes(arguments: argparse.Namespace, needed: int) -> Tensor:
    """The volumes of one scene, (T, 1, D, H, W), in the format that was asked for."""
    if arguments.clip is None:
        scene = make_scene(_BUILT_IN_SEED, objects=8)
        return VoxelScenes(scene.volumes[None], format=arguments.format)[0][:needed]
    if arguments.size is not None:
        raise ValueError("--size is for images; pcvideo.data.reduce_volumes makes volumes smaller")
    value_range = None if arguments.value_range is None else tuple(arguments.value_range)
    volumes = read_volumes(arguments.clip, layout=arguments.layout, value_range=value_range, nan=arguments.nan)
    if volumes.ndim == 6:
        logger.warning("%s holds %d scenes; the first is taken", arguments.clip, len(volumes))
        volumes = volumes[0]
    length, step = VOXEL_FORMATS[arguments.format]
    if is_scene_file(arguments.clip) or len(volumes) == 128:
        start = (len(volumes) - length) // 2
        return volumes[start : start + length : step][:needed]
    start = check_int("--start", arguments.start, minimum=0)
    return volumes[start : arguments.stop : check_int("--step", arguments.step)]


def _compare(seen: Tensor, prediction: Tensor, truth: Tensor) -> dict[str, list[float]]:
    from pcvideo.metrics import jaccard_distance  # noqa: PLC0415

    copied = copy_last(seen[None], len(truth))
    pairs = {"prediction": prediction[None], "copy_last": copied}
    return {name: jaccard_distance(one.float(), truth[None].float())[0].tolist() for name, one in pairs.items()}


def _draw(arguments: argparse.Namespace, seen: Tensor, prediction: Tensor, truth: Tensor | None) -> dict[str, str]:
    out: Path = arguments.out
    files = {"strip": out / "strip.png", "gif": out / "prediction.gif", "metrics": out / "metrics.json"}
    copied = copy_last(seen[None], len(prediction))[0]
    context, future, baseline = (slice_frames(clip) for clip in (seen, prediction, copied))
    came = None if truth is None else slice_frames(truth)
    save_strip(files["strip"], context, future, truth=came, baseline=baseline)
    save_comparison_gif(files["gif"], context, future, came, baseline, rate=arguments.gif_rate)
    if find_spec("matplotlib"):
        files |= {"surfaces": out / "surfaces.png", "surfaces_gif": out / "surfaces.gif"}
        rows = {"prediction": prediction, "copy-last": copied}
        rows = rows if truth is None else {"truth": truth, **rows}
        save_surface_strip(files["surfaces"], rows)
        save_surface_gif(files["surfaces_gif"], rows, rate=arguments.gif_rate)
    if arguments.mesh is not None:
        files["meshes"] = out / "meshes"
        files["meshes"].mkdir(exist_ok=True)
        for index, volume in enumerate(prediction):
            write_mesh(files["meshes"] / f"t{index + 1:03d}.{arguments.mesh}", volume)
    return {name: str(path) for name, path in files.items()}


def _table(result: Mapping[str, Any]) -> str:
    lines = ["one step             Jaccard   MSE"]
    for kind, figures in result["one_step"].items():
        name = "null (copy-last)" if kind == "null" else kind
        lines.append(f"  {name:18s} {figures['jaccard']['mean']:.4f}    {figures['mse_mean']['mean']:.5f}")
    lines += ["", "long-term steps, Jaccard"]
    for test, words in _TESTS.items():
        steps = result["long_term"][test]["prediction"]["jaccard"]["per_step"]
        lines.append(f"  {words:29s}" + " ".join(f"{value:.4f}" for value in steps))
    steps = result["long_term"]["windows"]["copy"]["jaccard"]["per_step"]
    lines.append(f"  {'copy-last':29s}" + " ".join(f"{value:.4f}" for value in steps))
    return "\n".join(lines)
