# SPDX-License-Identifier: Apache-2.0
"""Curves, read back from the SVG that matplotlib writes: it keeps every text as a comment and every colour by value."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcvideo.viz import horizon_curve, loss_curve
from pcvideo.viz.curves import _draw_series, _spread

figure_module = pytest.importorskip("matplotlib.figure", reason="matplotlib comes with pcvideo[train]")

MODEL, BASELINE = "#0072b2", "#767a80"


def texts(path: Path) -> list[str]:
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def lines(path: Path, colour: str) -> list[tuple[list[tuple[float, float]], bool]]:
    """The points of each line of a colour, upwards, and whether the line is broken."""
    found = []
    for points, style in re.findall(r'<path d="([^"]*)" clip-path[^>]*style="([^"]*)"', path.read_text()):
        if f"stroke: {colour}" in style:
            numbers = [(float(x), -float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", points)]
            found.append((numbers, "stroke-dasharray" in style))
    return found


def write_log(path: Path, rows: list[tuple[object, object, object]]) -> Path:
    path.write_text("step,name,value\n" + "".join(f"{step},{name},{value}\n" for step, name, value in rows))
    return path


def test_the_models_line_is_solid_and_the_baselines_grey_and_broken_through_their_values(tmp_path):
    path = tmp_path / "curve.svg"
    horizon_curve({"MSPN": [1, 2, 4], "copy_last": [3, 7, 5]}, metric="mse", path=path)
    ((model, model_broken),) = lines(path, MODEL)
    ((baseline, baseline_broken),) = lines(path, BASELINE)
    assert (model_broken, baseline_broken) == (False, True)
    drawn = np.array(model + baseline)
    # The axes are linear, so that what is drawn is a straight-line function of what was given.
    given = np.array([[1, 1], [2, 2], [3, 4], [1, 3], [2, 7], [3, 5]], dtype=float)
    for axis in range(2):
        fitted = np.polyfit(given[:, axis], drawn[:, axis], 1)
        np.testing.assert_allclose(np.polyval(fitted, given[:, axis]), drawn[:, axis], atol=1e-3)
        assert fitted[0] > 0
    assert {"MSPN", "copy_last", "squared error, sum over a frame", "MSE, lower is better"} <= set(texts(path))


def test_missing_and_infinite_values_leave_a_gap(tmp_path):
    path = tmp_path / "curve.svg"
    horizon_curve({"model": [30.0, 31.0, None, 28.0, float("inf"), 27.0, 26.0]}, metric="psnr", path=path)
    ((points, _),) = lines(path, MODEL)
    assert len(points) == 5
    text = path.read_text()
    (d,) = (d for d, style in re.findall(r'<path d="([^"]*)" clip-path[^>]*style="([^"]*)"', text) if MODEL in style)
    assert d.count("M") == 3


def test_several_models_have_colours_of_their_own(tmp_path):
    path = tmp_path / "curve.svg"
    horizon_curve({name: [1, 2] for name in "abcdef"}, metric="my metric", path=path)
    colours = set(re.findall(r"stroke: (#\w+); stroke-width: 2", path.read_text()))
    assert len(colours) == 6
    assert "my metric" in texts(path)


@pytest.mark.parametrize("values", [[5.0], list(range(200))])
def test_a_horizon_of_one_and_a_long_one_are_drawn(tmp_path, values):
    horizon_curve({"model": values, "copy-last": values}, metric="ssim", path=tmp_path / "deep" / "curve.png")
    with Image.open(tmp_path / "deep" / "curve.png") as image:
        assert image.size == (1050, 600)


def test_names_that_would_overlap_are_pushed_apart_and_others_stay():
    wanted = [0.5, 0.9, 0.52, 0.1, 0.51]
    spread = _spread(wanted, 0.1)
    assert np.diff(sorted(spread)).min() >= 0.1 - 1e-12
    assert (spread[1], spread[3]) == (0.9, 0.1)
    assert np.argsort(spread).tolist() == np.argsort(wanted).tolist()
    assert sum(spread) == pytest.approx(sum(wanted))


@pytest.mark.parametrize(
    ("per_step", "name", "error", "words"),
    [
        ({}, "c.png", ValueError, "at least one line"),
        ([1, 2], "c.png", TypeError, "per_step must map"),
        ({"model": [None, float("nan")]}, "c.png", ValueError, r"per_step\['model'\] .* finite"),
        ({"model": []}, "c.png", ValueError, "finite"),
        ({"model": ["x"]}, "c.png", TypeError, "list of numbers"),
        ({"model": 3}, "c.png", TypeError, "list of numbers"),
        ({"model": [1.0]}, "c.xls", ValueError, r"\.png"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, per_step, name, error, words):
    with pytest.raises(error, match=words):
        horizon_curve(per_step, metric="mse", path=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_loss_and_every_logged_metric_get_axes_with_copy_last_beside(tmp_path):
    rows = [(step, "loss", 100 / step) for step in range(1, 21)] + [(step, "seconds", 0.1) for step in range(1, 21)]
    rows += [(step, "learning_rate", 1e-3) for step in range(1, 21)]
    for step in (10, 20):
        rows += [(step, "validation/mse", 50 / step), (step, "validation/copy_last/mse", 60)]
        rows += [(step, "validation/mse_mean", 1), (step, "validation/psnr", "inf")]
    path = tmp_path / "loss.svg"
    loss_curve(write_log(tmp_path / "log.csv", rows), path)
    written = texts(path)
    assert {"loss", "learning rate", "MSE, lower is better", "validation", "copy-last", "training step"} <= set(written)
    assert "seconds" not in written
    assert written.count("MSE, lower is better") == 1
    ((baseline, broken),) = lines(path, BASELINE)
    assert broken
    assert baseline[0][1] == baseline[1][1]
    assert sorted(len(points) for points, _ in lines(path, MODEL)) == [2, 20, 20]


def test_half_a_row_of_a_killed_run_is_skipped(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,name,value\n1,loss,3.0\n2,loss,2.0\n3,lo")
    loss_curve(log, tmp_path / "loss.svg")
    ((points, _),) = lines(tmp_path / "loss.svg", MODEL)
    assert len(points) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns step, name, value"),
        ("a,b\n1,2\n", "columns step, name, value"),
        ("step,name,value\n", "no values yet"),
        ("step,name,value\n1,seconds,0.1\n1,loss,nan\n", "no values yet"),
        ("step,name,value\n1,loss,3\n2,loss,many\n", "line 3"),
    ],
)
def test_a_log_that_cannot_be_drawn_is_refused(tmp_path, text, words):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        loss_curve(tmp_path / "log.csv", tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        loss_curve(tmp_path / "nothing.csv", tmp_path / "loss.png")


def test_a_restless_series_is_drawn_with_its_running_mean_and_a_smooth_one_as_it_is():
    values = np.random.default_rng(0).random(500)
    axes = figure_module.Figure().subplots()
    look = {"color": MODEL, "linestyle": "-", "linewidth": 2.0}
    _draw_series(axes, "training", np.arange(500), values, look)
    _draw_series(axes, "training", np.arange(500), np.linspace(0, 1, 500), look)
    raw, mean, smooth = axes.get_lines()
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(mean.get_ydata(), np.convolve(values, np.ones(10) / 10, mode="valid"))
    assert mean.get_xdata()[0] == 5
    assert len(smooth.get_xdata()) == 500


def test_a_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "pcvideo\[train\]"'):
        horizon_curve({"model": [1.0]}, metric="mse", path=tmp_path / "curve.png")


def test_importing_brings_no_drawing_package_and_drawing_leaves_pyplot_alone(tmp_path):
    program = f"""
import sys
import pcvideo.viz
assert not {{"PIL", "matplotlib", "av"}} & set(sys.modules), "import is not light"
pcvideo.viz.horizon_curve({{"model": [1.0, 2.0]}}, metric="mse", path={str(tmp_path / "curve.png")!r})
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
