# SPDX-License-Identifier: Apache-2.0
"""Weights by name: where they are looked for, what is told when there are none, and what a published folder holds."""

import hashlib
import json

import pytest
import torch

import pcvideo
from pcvideo import hub
from pcvideo.hub import known


@pytest.fixture
def model() -> pcvideo.MSPN:
    torch.manual_seed(0)
    return pcvideo.MSPN(in_channels=1, levels=1, channels=(4, 8), hidden_channels=4).eval()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf of its own in the place of the package's."""
    monkeypatch.setattr(known, "shelves", lambda: [tmp_path / "shelf"])
    return tmp_path / "shelf"


def publish(model, folder, **changes):
    facts = {"task": "the next frame", "data": "none", "recipe": {"size": [8, 8]}, "licence": "Apache-2.0"}
    hub.write_weights_folder(model, folder, **(facts | changes))


def test_a_folder_loads_as_what_it_holds_and_predicts_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    loaded = pcvideo.from_pretrained(tmp_path / "mine")
    assert type(loaded) is pcvideo.MSPN
    assert not loaded.training
    frames = torch.rand(1, 3, 1, 8, 8)
    torch.testing.assert_close(loaded(frames, 2), model(frames, 2))


def test_a_name_is_found_on_a_shelf(model, shelf):
    publish(model, shelf / "tiny")
    assert [published.name for published in pcvideo.list_models()] == ["tiny"]
    assert pcvideo.from_pretrained("tiny").config == model.config


def test_published_weights_are_rounded_to_16_bit_and_computed_in_float32(model, shelf):
    publish(model, shelf / "tiny")
    loaded = pcvideo.from_pretrained("tiny")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_the_checksum_on_the_card_is_that_of_the_file(model, shelf):
    publish(model, shelf / "tiny")
    card = json.loads((shelf / "tiny" / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256((shelf / "tiny" / "model.safetensors").read_bytes()).hexdigest()
    assert card["sha256"] in (shelf / "tiny" / "README.md").read_text()


def test_the_card_shows_every_figure_beside_its_baselines(model, shelf):
    results = {"standard": {"metrics": {"mse": 12.5}, "copy_last": {"mse": 99.25}, "black": {"mse": 50.0}}}
    publish(model, shelf / "tiny", metrics=results)
    text = (shelf / "tiny" / "README.md").read_text()
    assert "| this model | 12.5 |" in text
    assert "| copy_last | 99.25 |" in text


def test_the_number_of_parameters_is_that_of_the_model(model, shelf):
    publish(model, shelf / "tiny")
    assert pcvideo.list_models()[0].parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_typo_is_answered_with_the_nearest_name_and_the_places(model, shelf):
    publish(model, shelf / "mspn-tiny")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'mspn-tiny'.*shelf"):
        pcvideo.from_pretrained("mspn-tny")


def test_a_folder_without_weights_says_which_files_it_needs(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"config\.json and model\.safetensors"):
        pcvideo.from_pretrained(tmp_path)


def test_a_class_of_ones_own_is_told_how_to_load(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config | {"model": "MyPredictor"}))
    with pytest.raises(ValueError, match=r"MyPredictor.*YourClass\.from_pretrained"):
        pcvideo.from_pretrained(tmp_path / "mine")


def test_the_checksums_of_all_published_weights_hold():
    published = pcvideo.list_models()
    assert published, "the package ships weights"
    for entry in published:
        digest = hashlib.sha256((entry.folder / "model.safetensors").read_bytes()).hexdigest()
        assert digest == entry.facts["sha256"], entry.name


def test_the_built_in_weights_fit_into_the_package():
    sizes = {entry.name: entry.size for entry in pcvideo.list_models()}
    assert sizes["mspn-moving-mnist"] <= 8 * 2**20
    assert sum(sizes.values()) <= 32 * 2**20


def test_the_built_in_weights_follow_moving_digits_better_than_copying_the_last_frame():
    model = pcvideo.from_pretrained("mspn-moving-mnist")
    digits = pcvideo.data.procedural_digits(per_class=10, seed=7)
    clips = pcvideo.data.MovingMNIST(digits, clips=8, seed=3).batch(range(8))
    with torch.no_grad():
        prediction = model(clips[:, :10], 10)
    truth, last = clips[:, 10:], clips[:, 9:10].expand(-1, 10, -1, -1, -1)
    assert ((prediction - truth) ** 2).mean() < 0.6 * ((last - truth) ** 2).mean()
