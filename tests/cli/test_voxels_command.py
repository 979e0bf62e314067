# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pcvideo.cli.main import main
from pcvideo.data import generate_scenes
from pcvideo.models import MSPN, ConvLSTMPredictor
from pcvideo.video_io import write_scenes

TINY = {"hidden_channels": (2,), "kernel_sizes": (1,), "head_kernel_size": 1, "patch": 2, "batch_norm": False}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ConvLSTMPredictor(**TINY, residual=True).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    made = generate_scenes(3, size=(4, 4, 4), reach=(0.4, 0.8))
    write_scenes(tmp_path / "scenes.npz", made.unpack(slice(None)))
    return tmp_path / "scenes.npz"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_evaluate_scores_scenes_in_a_format_beside_null(weights: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ("--dataset", "voxel4d", "--data", scenes, "--format", "40/2", "--json", out)
    assert run("evaluate", "--model", weights, *arguments) in (0, None)
    result = json.loads(out.read_text())
    assert (result["format"], result["clips"]) == ("40/2", 3)
    frames = np.load(scenes)["packed"]
    clips = np.unpackbits(frames, axis=1).reshape(3, 128, 4, 4, 4)[:, 44:84:2].astype(bool)
    both, either = (op(clips[:, :-1], clips[:, 1:]).sum((2, 3, 4)) for op in (np.logical_and, np.logical_or))
    null = np.where(either > 0, 1 - both / np.maximum(either, 1), 0).mean()
    assert result["one_step"]["null"]["jaccard"]["mean"] == pytest.approx(null, abs=1e-6)
    assert len(result["long_term"]["carried"]["prediction"]["jaccard"]["per_step"]) == 5


def test_predict_writes_slices_meshes_and_figures(weights: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--context", 4, "--horizon", 2, "--format", "80/4", "--mesh", "stl", "--out", out)
    assert run("predict", scenes, "--model", weights, *options) in (0, None)
    result = json.loads((out / "metrics.json").read_text())
    assert (result["context"], result["horizon"], result["size"]) == (4, 2, [4, 4, 4])
    assert len(result["jaccard"]["prediction"]) == len(result["jaccard"]["copy_last"]) == 2
    assert {"strip.png", "prediction.gif", "meshes"} <= {path.name for path in out.iterdir()}
    assert [path.name for path in sorted((out / "meshes").iterdir())] == ["t001.stl", "t002.stl"]


def test_train_leaves_weights_that_score_and_goes_on(scenes: Path, tmp_path: Path) -> None:
    config = json.dumps(TINY | {"hidden_channels": [2], "kernel_sizes": [1]})
    common = ("--dataset", "voxel4d", "--data", scenes, "--val-data", scenes, "--format", "20/1", "--batch", 2)
    common += ("--run-dir", tmp_path / "run", "--context", 5, "--horizon", 5, "--validation-clips", 2)
    model = ("--model", "convlstmpredictor", "--model-config", config)
    assert run("train", *common, *model, "--steps", 2) in (0, None)
    assert ConvLSTMPredictor.from_pretrained(tmp_path / "run" / "best").config["patch"] == 2
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2
    assert run("train", *common, *model, "--steps", 3, "--resume", "auto") in (0, None)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_a_model_of_images_is_refused(tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture) -> None:
    MSPN(in_channels=1, levels=1, channels=(2, 2), hidden_channels=1).save_pretrained(tmp_path / "mspn")
    status = run("evaluate", "--model", tmp_path / "mspn", "--dataset", "voxel4d", "--data", scenes)
    assert status
    assert "models of volumes" in capsys.readouterr().err
