# SPDX-License-Identifier: Apache-2.0
"""`pcvideo filter`: the figures it prints against those of numpy's FFT, of one filter and of a model's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pcvideo.cli import filter as filter_command
from pcvideo.cli.main import build_parser, main
from pcvideo.layers.fir import FIRDownsample, FIRUpsample, LearnableFIR


def aliased_by_numpy(taps: np.ndarray, factor: int = 2) -> float:
    """Share of white noise above the new Nyquist after a separable filter."""
    power = np.abs(np.fft.fft(taps, 256)) ** 2
    kept = np.abs(np.fft.fftfreq(256)) * 2 <= 1 / factor
    return 1 - (power[kept].sum() / power.sum()) ** 2


def sinc_taps(taps: int, cutoff: float, window: np.ndarray) -> np.ndarray:
    found = np.sinc(cutoff * (np.arange(taps) - taps // 2)) * window
    return found / found.sum()


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert main(["filter", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["filters"]


def test_its_help_has_examples_that_parse(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["filter", "--help"])
    assert stopped.value.code == 0
    examples = capsys.readouterr().out.partition("examples:")[2].strip().splitlines()
    assert len(examples) > 2
    for line in examples:
        words = line.split()
        assert words[:2] == ["pcvideo", "filter"]
        build_parser().parse_args(words[1:])


def test_with_no_flags_it_measures_the_default_filter_in_a_table(capsys):
    assert main(["filter"]) == 0
    header, row = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    cells = dict(zip([cell.strip() for cell in header if cell], [cell.strip() for cell in row if cell], strict=True))
    assert cells["filter"] == "separable 9 kaiser(4)"
    assert (cells["cutoff"], cells["aliased %"], cells["asymmetry"]) == ("0.450", "4.5", "0.00")
    assert float(cells["stop h dB"]) == float(cells["stop v dB"]) <= -14


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], aliased_by_numpy(sinc_taps(9, 0.45, np.kaiser(9, 4.0)))),
        (
            ["--taps", "7", "--window", "hamming", "--cutoff", "0.5"],
            aliased_by_numpy(sinc_taps(7, 0.5, np.hamming(7))),
        ),
        (["--beta", "2.5", "--factor", "3"], aliased_by_numpy(sinc_taps(9, 0.3, np.kaiser(9, 2.5)), 3)),
    ],
)
def test_the_flags_make_the_filter(capsys, words, expected):
    (entry,) = run_json(capsys, *words)
    assert entry["worst"]["aliased_white"] == pytest.approx(expected, rel=1e-9)
    assert entry["mean"]["aliased_white"] == pytest.approx(expected, rel=1e-9)


def test_the_published_design_shows_that_it_leaves_an_axis_alone(capsys):
    (entry,) = run_json(capsys, "--design", "reshaped", "--cutoff", "0.5")
    assert round(100 * entry["mean"]["aliased_white"], 1) == 50.0
    assert round(entry["mean"]["stopband_vertical_db"], 1) == -0.9
    (radial,) = run_json(capsys, "--design", "radial", "--taps", "7", "--cutoff", "0.5")
    assert round(100 * radial["mean"]["aliased_white"], 1) == 4.3


def model_with_filters() -> torch.nn.Module:
    model = torch.nn.ModuleDict({"down": FIRDownsample(3), "up": FIRUpsample(2, factor=4), "plain": LearnableFIR(1)})
    with torch.no_grad():
        # Cutoffs of 0.25, 0.45 and 0.4 of the old Nyquist.
        model["down"].cutoff_logit.copy_(torch.logit(torch.tensor([0.5, 0.9, 0.8])))
    return model


def test_each_filter_of_a_model_is_measured_by_its_mean_and_its_worst_channel(capsys, monkeypatch):
    monkeypatch.setattr(filter_command, "load_model", lambda name, device: model_with_filters())
    down, up, plain = run_json(capsys, "--model", "some-model", "--factor", "3")
    assert [entry["name"] for entry in (down, up, plain)] == ["down", "up", "plain"]
    assert [entry["factor"] for entry in (down, up, plain)] == [2, 4, 3]
    assert [entry["channels"] for entry in (down, up, plain)] == [3, 2, 1]

    shares = [aliased_by_numpy(sinc_taps(9, cutoff, np.kaiser(9, 4.0))) for cutoff in (0.25, 0.45, 0.4)]
    assert down["worst"]["channel"] == 1
    # The parameter is a float32.
    assert down["worst"]["cutoff"] == pytest.approx(0.45, rel=1e-6)
    assert down["worst"]["aliased_white"] == pytest.approx(shares[1], rel=1e-5)
    assert down["mean"]["aliased_white"] == pytest.approx(np.mean(shares), rel=1e-5)
    assert down["mean"]["cutoff"] == pytest.approx(1.1 / 3, rel=1e-6)

    assert main(["filter", "--model", "some-model"]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    # The two channels of "up" are alike.
    assert [row[:4] for row in printed[1:]] == [
        ["down", "2", "mean", "of"],
        ["down", "2", "worst,", "1"],
        ["up", "4", "all", "2"],
        ["plain", "2", "-", "0.900"],
    ]


def test_a_model_without_filters_is_told_so(capsys, grey_model):
    assert main(["filter", "--model", grey_model]) == 0
    assert "no learnable low-pass filters" in capsys.readouterr().out
    assert run_json(capsys, "--model", grey_model) == []


def test_a_picture_is_drawn_where_one_is_asked_for_and_only_there(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with pcvideo[train]")
    # Apart from the home folder, where matplotlib keeps a cache.
    folder = tmp_path / "pictures"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["filter"]) == 0
    assert list(folder.iterdir()) == []
    assert main(["filter", "--out", "response.png"]) == 0
    assert "response.png" in capsys.readouterr().out
    with Image.open(folder / "response.png") as one:
        width, height = one.size
    monkeypatch.setattr(filter_command, "load_model", lambda name, device: model_with_filters())
    assert main(["filter", "--model", "some-model", "--out", "all.png"]) == 0
    with Image.open(folder / "all.png") as all_three:
        assert all_three.size == (width, 3 * height)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--taps", "8"], "take 9"),
        (["--cutoff", "1.5"], "cutoff must lie in (0, 1]"),
        (["--factor", "1"], "--factor must be at least 2"),
        (["--design", "reshaped", "--taps", "5"], "leave --taps out"),
        (["--window", "hamming", "--beta", "3"], "leave one of them out"),
        (["--model", "mspn-natural", "--cutoff", "0.5"], "--cutoff says how to make a filter"),
        (["--out", "response.txt"], ".png"),
    ],
)
def test_flags_that_do_not_fit_are_one_line_with_the_mend(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["filter", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
