# SPDX-License-Identifier: Apache-2.0
"""`pcvideo train`: settings from flags and files, the run folder, stopping and going on."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import pcvideo
from pcvideo import hub
from pcvideo.cli.main import main

SMALL = {"levels": 2, "channels": [4, 6, 6], "hidden_channels": 3}
SMALL_FLAGS = ["--levels", "2", "--channels", "4", "6", "6", "--hidden-channels", "3"]
SHORT = ["--context", "2", "--horizon", "2", "--batch", "2", "--steps", "3", "--threads", "1"]


def train(*arguments: Any, curve: bool = False) -> int:
    """The exit status; the curve takes longer to draw than these runs to train, so most do without."""
    with nullcontext() if curve else mock.patch("pcvideo.cli.train.loss_curve"):
        return main(["train", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert train(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("pcvideo train: error: ")
    return said[-1]


def losses(run_dir: Path) -> dict[int, str]:
    """The loss of each step, as it stands in the log."""
    with (run_dir / "log.csv").open(newline="") as file:
        return {int(row["step"]): row["value"] for row in csv.DictReader(file) if row["name"] == "loss"}


def resolved(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "config-resolved.json").read_text())


def test_a_run_on_videos_leaves_weights_figures_and_pictures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, videos: Path
) -> None:
    run = tmp_path / "run"
    call = ["--data", videos, "--val-include", "walk", *SMALL_FLAGS, *SHORT, "--run-dir", run, "--flip"]
    assert train(*call, curve=True) == 0
    said = capsys.readouterr()
    # 24 frames make six windows of four; the third video is held out.
    assert "12 clips to train on" in said.err
    assert f"--model {run / 'best'}" in said.out
    assert "copy-last" in said.out
    figures = json.loads((run / "metrics.json").read_text())["protocols"]["standard"]
    with (run / "log.csv").open(newline="") as file:
        log = {row["name"]: float(row["value"]) for row in csv.DictReader(file) if row["step"] == "3"}
    assert figures["metrics"]["mse"] == pytest.approx(log["validation/mse"], rel=1e-5)
    assert figures["copy_last"]["ssim"] == pytest.approx(log["validation/copy_last/ssim"], rel=1e-5)
    for picture in ("pictures/step-00000003.png", "pictures/step-00000003-1.gif", "loss.png"):
        assert (run / picture).stat().st_size > 0
    assert list(losses(run)) == [1, 2, 3]
    assert hub.from_pretrained(run / "best").in_channels == 3
    assert json.loads((run / "run.json").read_text())["notes"]["configuration"] == resolved(run)


def test_flags_count_more_than_the_file_and_the_file_more_than_defaults(tmp_path: Path, idx_folder: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        f'data = "moving-mnist"\ndigits = "{idx_folder}"\nlevels = 2\nchannels = [4, 6, 6]\nhidden-channels = 3\n'
        'context = 2\nhorizon = 2\nbatch = 2\nsteps = 9\nlr = 0.5\nclip_norm = 3.0\nlevel-weights = "linear"\n'
        "validation-clips = 2\nsize = [32, 32]\nema = 0.9\n"
    )
    run = tmp_path / "run"
    assert train("--config", file, "--steps", 1, "--lr", "0.25", "--clip-norm", "none", "--run-dir", run) == 0
    values = resolved(run)
    assert (values["steps"], values["lr"], values["clip_norm"]) == (1, 0.25, None)
    assert (values["batch"], values["level_weights"], values["size"], values["ema"]) == (2, "linear", [32, 32], 0.9)
    assert (values["optimizer"], values["in_channels"], values["patch"]) == ("adam", 1, 1)


def test_the_resolved_configuration_gives_the_same_run_again(tmp_path: Path, idx_folder: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    data = ["--data", "moving-mnist", "--digits", idx_folder, "--clips", 50, "--size", 32, 32]
    data += ["--validation-clips", 2, "--level-weights", "1", "0.5", "--step-weights", "skip_first", "--ema", "0.5"]
    assert train(*data, *SMALL_FLAGS, *SHORT, "--seed", 5, "--run-dir", first) == 0
    again = ["--config", first / "config-resolved.json"]
    assert train(*again, "--run-dir", second) == 0
    assert losses(second) == losses(first)
    assert {**resolved(second), "run_dir": None} == {**resolved(first), "run_dir": None}
    assert train(*again, "--seed", 6, "--run-dir", other) == 0
    assert losses(other)[1] != losses(first)[1]


def test_moving_digits_without_mnist_say_that_they_are_procedural(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(SMALL))
    call = ["--model-config", model, "--size", 32, 32, "--validation-clips", 2, *SHORT, "--run-dir", tmp_path / "run"]
    assert train(*call, "--steps", 1) == 0
    said = capsys.readouterr().err
    assert "No MNIST at hand" in said
    assert "procedural digits" in said
    assert (resolved(tmp_path / "run")["channels"], resolved(tmp_path / "run")["model"]) == ([4, 6, 6], "mspn")


def test_fine_tuning_starts_from_the_weights_and_is_scored_beside_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str, videos: Path
) -> None:
    run = tmp_path / "run"
    data = ["--data", videos, "--val-data", videos, "--val-include", "walk", "--lr", 0, "--json"]
    assert train("--init", colour_model, *data, *SHORT, "--run-dir", run) == 0
    standard = json.loads(capsys.readouterr().out)["protocols"]["standard"]
    # Nothing is learnt at a learning rate of 0.
    assert standard["metrics"]["mse"] == standard["start"]["mse"] != standard["copy_last"]["mse"]
    trained, start = (hub.from_pretrained(folder).state_dict() for folder in (run / "best", colour_model))
    assert all(torch.equal(trained[name], start[name]) for name in start)


def test_without_validation_best_holds_the_last_weights(tmp_path: Path, videos: Path) -> None:
    run = tmp_path / "run"
    call = ["--data", videos, "--val-share", 0, "--strategy", "teacher-forced", "--loss-norm", "mean", "--cache"]
    assert train(*call, *SMALL_FLAGS, *SHORT, "--run-dir", run) == 0
    best, last = (
        hub.from_pretrained(run / name).state_dict() for name in ("best", "checkpoints/step-00000003")
    )  # fmt: skip
    assert all(torch.equal(best[name], last[name]) for name in last)
    assert json.loads((run / "metrics.json").read_text())["protocols"] == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"stpes": 3}, "unknown key 'stpes'; did you mean 'steps'?"),
        ({"batch": 2.5}, "batch must be a whole number"),
        ({"batch": True}, "batch must be a whole number"),
        ({"lr": "high"}, "lr must be a number"),
        ({"steps": None}, "steps must be given a value"),
        ({"flip": 1}, "flip must be true or false"),
        ({"schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"size": [64]}, "size must be a height and a width"),
        ({"channels": "64"}, "channels must be a list of whole numbers"),
        ([1], "one object of settings"),
    ],
)
def test_a_wrong_configuration_file_is_refused_by_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: Any, words: str
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(content))
    call = ["--config", tmp_path / "settings.json", "--run-dir", tmp_path / "run"]
    assert words in refused(capsys, *call)
    assert not (tmp_path / "run").exists()


def test_what_makes_no_run_is_refused_before_it_begins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str, videos: Path
) -> None:
    run = ["--run-dir", tmp_path / "run", *SHORT]
    assert "leave out --model" in refused(capsys, "--init", colour_model, "--model", "mspn", *run)
    assert "unknown key 'merge'" in refused(capsys, "--init", colour_model, "--merge", "add", *run)
    assert f"--init {colour_model} trains them further" in refused(capsys, "--model", colour_model, *run)
    assert "--model must be one of mspn, ppnv2" in refused(capsys, "--model", "convlstmpredictor", *run)
    assert "weights for volumes" in refused(capsys, "--init", "convlstm-voxels", *run)
    assert "did you mean 'MSPN'?" in refused(capsys, "--model", "MSPNN", *run)
    assert "channels must hold at least levels + 1" in refused(capsys, "--channels", 4, 8, "--levels", 2, *run)
    assert "unknown key 'widths'" in refused(capsys, "--model-config", '{"widths": [4]}', *run)
    assert "no complete JSON" in refused(capsys, "--model-config", '{"levels": ', *run)
    assert "does not exist" in refused(capsys, "--data", tmp_path / "nowhere", *run)
    assert "--detach" in refused(
        capsys, "--data", videos, "--strategy", "teacher-forced", "--detach", *run, *SMALL_FLAGS
    )
    assert "--include" in refused(capsys, "--include", "walk", *run, *SMALL_FLAGS)
    many = ["--data", videos, *SMALL_FLAGS, *run, "--batch", 99]
    assert "--batch 99 is more than the 12 clips" in refused(capsys, *many)


def test_a_finished_run_is_only_gone_on_with_on_request_and_then_by_its_own_settings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, videos: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    data = ["--data", videos, *SMALL_FLAGS, *SHORT, "--schedule", "constant", "--seed", 3]
    assert train(*data, "--run-dir", run) == 0
    assert "--resume auto goes on from it" in refused(capsys, *data, "--run-dir", run)
    assert train("--run-dir", run, "--resume", "auto", "--steps", 5) == 0
    assert train(*data, "--steps", 5, "--run-dir", whole) == 0
    assert losses(run) == losses(whole)
    assert resolved(run)["seed"] == 3


def test_a_run_that_is_killed_exits_with_143_and_ends_with_the_losses_of_the_unbroken_one(
    tmp_path: Path, videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ["--data", str(videos), *SMALL_FLAGS, *SHORT, "--steps", "24", "--flip", "--ema", "0.9", "--cache"]
    data += ["--validate-every", "0", "--checkpoint-every", "1"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    source = str(Path(pcvideo.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "pcvideo", "train", *data, "--run-dir", str(broken)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not list(broken.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 143, said
    assert "stopped by SIGTERM; resume from" in said
    assert 0 < len(losses(broken)) < 24
    with caplog.at_level(logging.INFO, logger="pcvideo"):
        assert train(*data, "--run-dir", broken, "--resume", "auto") == 0
    assert "resumed from" in caplog.text
    assert train(*data, "--run-dir", whole) == 0
    assert losses(broken) == losses(whole)
    assert len(losses(whole)) == 24


def test_ppnv2_is_trained_by_its_published_loss_unless_told_otherwise(tmp_path: Path, videos: Path) -> None:
    widths = ["--model", "ppnv2", "--channels", 3, 4, 5, "--residual"]
    data = ["--data", videos, "--size", 16, 16, *SHORT, "--context", 3]
    run = tmp_path / "run"
    assert train(*data, *widths, "--hidden-channels", 2, 4, 5, "--run-dir", run) == 0
    values = resolved(run)
    assert (values["model"], values["channels"], values["hidden_channels"]) == ("ppnv2", [3, 4, 5], [2, 4, 5])
    assert (values["fir"], values["levels"]) == ("separable", None)
    with (run / "log.csv").open(newline="") as file:
        rows = [(row["name"], float(row["value"])) for row in csv.DictReader(file) if row["step"] == "1"]
    logged = dict(rows)
    assert logged["prediction"] + logged["encoding"] == pytest.approx(logged["loss"], rel=1e-5)
    assert logged["encoding"] > 0
    assert [values[name] for name in ("level_weights", "step_weights", "encoding_loss")] == [
        "shared_above",
        "damp_first",
        True,
    ]
    # The file of the run gives the same losses.
    assert train("--config", run / "config-resolved.json", "--run-dir", tmp_path / "again") == 0
    assert losses(tmp_path / "again") == losses(run)
    assert train(*data, *widths, "--no-encoding-loss", "--detach-targets", "--run-dir", tmp_path / "plain") == 0
    assert "encoding" not in (tmp_path / "plain" / "log.csv").read_text()


def test_an_argument_of_another_model_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refused(capsys, "--model", "ppnv2", "--levels", 4, "--run-dir", tmp_path / "run")
    assert "levels" in said
    assert "channels" in said
    said = refused(capsys, "--model", "mspn", "--merge", "add", "--run-dir", tmp_path / "run")
    assert "merge" in said
    said = refused(capsys, "--model", "ppnv2", "--strategy", "teacher-forced", "--encoding-loss")
    assert "--encoding-loss is for --strategy self-feeding" in said
