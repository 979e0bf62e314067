# SPDX-License-Identifier: Apache-2.0
"""`pcvideo models`: the table, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pcvideo
from pcvideo.cli.main import main
from pcvideo.hub import known
from pcvideo.models._catalog import Configuration


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(known, "shelves", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def model(shelf: Path) -> pcvideo.MSPN:
    """A small one that lies on the shelf."""
    model = pcvideo.MSPN(in_channels=1, levels=1, channels=(2, 3), hidden_channels=2)
    model.save_pretrained(shelf / "mspn-small")
    figures = {"standard": {"metrics": {"mse": 91.25}, "copy_last": {"mse": 286.5}}}
    card = {"task": "predicts dots", "metrics": figures, "recipe": {"size": [48, 64]}}
    (shelf / "mspn-small" / "card.json").write_text(json.dumps(card))
    return model


def test_without_weights_it_says_how_to_get_some(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "no weights at hand" in capsys.readouterr().out


def test_weights_stand_in_a_row_with_cost_and_figures_beside_copy_last(
    model: pcvideo.MSPN, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    count = sum(parameter.numel() for parameter in model.parameters())
    for word in ("mspn-small", "predicts dots", f"{count:,}", "48x64", "mse 91.2", "copy-last 286.5", "built in"):
        assert word in row
    assert "GMAC" in header


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (
            {"metrics": {"mse": 4.25}, "average_frames": {"mse": 7}, "copy_before": {"mse": 9}},
            "mse 4.2 average-frames 7.0",
        ),
        ({"metrics": {"jaccard": 0.25, "mse": None}, "copy_last": {"jaccard": 0.5}}, "jaccard 0.250 copy-last 0.500"),
        ({"metrics": {"ssim": 0.5}}, "- -"),
    ],
)
def test_every_figure_names_its_metric_and_what_stands_beside_it(
    model: pcvideo.MSPN, shelf: Path, capsys: pytest.CaptureFixture[str], figures: dict[str, object], told: str
) -> None:
    card = {"task": "dots", "metrics": {"standard": figures}, "recipe": {"size": [48, 64]}}
    (shelf / "mspn-small" / "card.json").write_text(json.dumps(card))
    assert main(["models"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert f" {told} built in" in " ".join(row.split())


def test_json_has_the_same_and_where_the_weights_are(
    model: pcvideo.MSPN, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert (entry["name"], entry["folder"]) == ("mspn-small", str(shelf / "mspn-small"))
    assert entry["bytes"] == (shelf / "mspn-small" / "model.safetensors").stat().st_size
    assert (entry["repository"], entry["frame"]) == (None, [48, 64])
    # Every convolution of this network works on whole pixels of a level: so many products for each of them.
    assert 0 < entry["gmac"] < entry["parameters"] * 48 * 64 / 1e9


def test_all_lists_networks_and_published_weights_that_are_not_at_hand(
    model: pcvideo.MSPN, shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Configuration("MSPN", {**model.config, "levels": 1}, (48, 64), "a network")
    monkeypatch.setattr(known, "CONFIGURATIONS", {"mspn-network": network})
    entry = {"task": "dots", "model": "MSPN", "config": model.config, "size": [8, 8], "bytes": 2**20, "gmac": 0.5}
    entry |= {"sha256": {}, "repository": None, "revision": None}
    published = {"far": entry | {"repository": "org/far", "revision": "a" * 40}, "unseen": entry}
    (shelf / "published.json").write_text(json.dumps(published))
    assert main(["models"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows.keys() == {"name", "mspn-small", "far", "unseen"}
    assert rows["far"].endswith("on the Hub, org/far")
    assert rows["unseen"].endswith("not published yet")
    assert main(["models", "--all"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows["mspn-network"].endswith("no weights")
