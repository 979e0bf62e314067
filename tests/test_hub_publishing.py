# SPDX-License-Identifier: Apache-2.0
"""Names that stand for repositories, and publishing: the real client of the Hub against a stand-in on loopback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_helpers import LOAD, WEIGHTS, files_of, make_model, prediction
from hub_stand_in import TOKEN

import pcvideo
from pcvideo import _files

# Names


CATALOG = """
from pathlib import Path
from pcvideo.hub import known
known.shelves = lambda: [Path(shelf)]
os.environ.pop("PCVIDEO_HUB_ORGANISATION", None)
os.environ.update(setting)
"""


def test_a_name_is_loaded_from_its_pinned_commit_and_another_content_is_refused(hub, client, tmp_path):
    model = make_model()
    files = files_of(model, tmp_path / "out")
    commit = hub.publish("org/tiny", files)
    hub.publish("org/tiny", files_of(make_model(1), tmp_path / "newer"))
    entry = {"task": "dots", "model": "MSPN", "config": model.config, "size": [8, 8], "bytes": len(files[WEIGHTS])}
    entry |= {"gmac": None, "repository": "org/tiny", "revision": commit}
    entry |= {"sha256": {WEIGHTS: _files.size_and_sha256(tmp_path / "out" / WEIGHTS)["sha256"]}}
    given = {"setting": {}, "name": "tiny", "options": {"cache_dir": str(tmp_path / "cache")}}
    _files.write_json(tmp_path / "published.json", {"tiny": entry})
    answer = client.run(CATALOG + LOAD, shelf=str(tmp_path), **given)
    assert answer.error is None, answer.message
    assert answer.result == pytest.approx(prediction(model), abs=1e-6)
    _files.write_json(tmp_path / "published.json", {"tiny": entry | {"sha256": {WEIGHTS: "0" * 64}}})
    answer = client.run(CATALOG + LOAD, shelf=str(tmp_path), **given)
    assert answer.error == "WeightsCorruptError"
    assert "than this version of pcvideo pins" in answer.message
    _files.write_json(tmp_path / "published.json", {"tiny": entry | {"repository": None, "revision": None}})
    answer = client.run(CATALOG + LOAD, shelf=str(tmp_path), **given)
    assert answer.error == "FileNotFoundError"
    assert "not published yet" in answer.message


def test_the_setting_names_the_organisation_where_plain_names_are_looked_for(hub, client, tmp_path):
    model = make_model()
    hub.publish("our-lab/walkers", files_of(model, tmp_path / "out"))
    given = {"setting": {"PCVIDEO_HUB_ORGANISATION": "our-lab"}, "options": {"cache_dir": str(tmp_path / "cache")}}
    answer = client.run(CATALOG + LOAD, shelf=str(tmp_path), name="walkers", **given)
    assert answer.result == pytest.approx(prediction(model), abs=1e-6)
    answer = client.run(CATALOG + LOAD, shelf=str(tmp_path), name="walkrs", **given)
    assert answer.error == "FileNotFoundError"
    assert "no repository our-lab/walkrs on" in answer.message
    assert str(tmp_path) in answer.message


# Publishing


PUSH = """
torch.manual_seed(0)
model = pcvideo.MSPN(in_channels=1, levels=1, channels=(4, 8), hidden_channels=4).eval()
if "picture" in facts:
    facts["picture"] = torch.rand(facts["picture"], generator=torch.Generator().manual_seed(0))
result = pcvideo.push_to_hub(model, name, token=token, **facts)
"""
FACTS = {
    "task": "Predicts dots",
    "data": "Dots (ours), drawn at random",
    "datasets": ["me/dots"],
    "recipe": {"steps": 3, "size": [64, 64]},
    "licence": "CC-BY-4.0",
    "metrics": {"standard": {"metrics": {"mse": 12.5, "lpips": None}, "copy_last": {"mse": 99.25}}},
}


def test_what_is_pushed_loads_again_and_its_card_says_what_was_given(hub, client, load):
    answer = client.run(PUSH, name="me/pushed", token=TOKEN, facts={**FACTS, "picture": [6, 1, 32, 32]})
    assert answer.error is None, answer.message
    assert hub.repositories["me/pushed"].branches["main"] == answer.result
    files = hub.repositories["me/pushed"].commits[answer.result]
    assert files.keys() == {
        ".gitattributes", "README.md", "card.json", "config.json", "manifest.json", WEIGHTS, "prediction.png",
    }  # fmt: skip
    assert files["prediction.png"].startswith(b"\x89PNG")
    assert load("me/pushed", revision=answer.result).result == pytest.approx(prediction(make_model()), abs=1e-6)
    _, head, text = files["README.md"].decode().split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["library_name"] == "pcvideo"
    assert (head["license"], head["datasets"], head["pipeline_tag"]) == ("cc-by-4.0", ["me/dots"], "video-to-video")
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Dots"
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [("mse", 12.5)]
    for words in ('from_pretrained("me/pushed")', "| copy_last | 99.25 |", "![", "(prediction.png)", "- steps: 3"):
        assert words in text
    assert not any(TOKEN.encode() in content for content in files.values())
    assert "canary" not in client.log.read_text().lower()


def test_a_second_push_removes_the_tensors_of_the_first(hub, client, load):
    client.run(PUSH, name="me/again", token=TOKEN, facts={"max_shard_size": 4000})
    before = hub.repositories["me/again"]
    assert sum(name.startswith("model-") for name in before.commits[before.branches["main"]]) > 2
    answer = client.run(PUSH, name="me/again", token=TOKEN, facts={})
    files = hub.repositories["me/again"].commits[answer.result]
    assert [name for name in files if "safetensors" in name] == [WEIGHTS]
    assert load("me/again").result == pytest.approx(prediction(make_model()), abs=1e-6)


def test_a_private_push_makes_a_private_repository_and_never_goes_to_a_public_one(hub, client, tmp_path):
    assert client.run(PUSH, name="me/hidden", token=TOKEN, facts={"private": True}).error is None
    assert hub.repositories["me/hidden"].private
    hub.publish("me/open", {"README.md": b"mine"})
    answer = client.run(PUSH, name="me/open", token=TOKEN, facts={"private": True})
    assert answer.error == "PermissionError"
    assert "public already" in answer.message
    assert len(hub.repositories["me/open"].commits) == 1


def test_a_push_without_the_right_token_says_how_to_log_in(hub, client):
    for token in (None, "hf_someoneElsesToken0123456789"):
        answer = client.run(PUSH, name="me/refused", token=token, facts={})
        assert answer.error == "PermissionError", answer.message
        assert "hf auth login" in answer.message
    assert "me/refused" not in hub.repositories


def test_facts_that_hold_a_token_are_refused_before_anything_is_sent(hub, client):
    hub.requests.clear()
    recipe = {"recipe": {"command": f"HF_TOKEN={TOKEN} pcvideo train"}}
    answer = client.run(PUSH, name="me/leak", token=TOKEN, facts=recipe)
    assert answer.error == "ValueError"
    assert "recipe.command holds an access token" in answer.message
    assert "canary" not in answer.message.lower()
    assert hub.requests == []


def test_a_push_to_a_dead_server_is_told_within_ten_seconds(hub, client):
    with hub.down():
        answer = client.run(PUSH, name="me/dead", token=TOKEN, facts={})
    assert answer.error == "ConnectionError"
    assert answer.seconds < 10


PUBLISH_ALL = """
import importlib.util, sys
sys.path.insert(0, scripts)
import publish
from pathlib import Path
from pcvideo.hub import known
known.shelves = lambda: [Path(shelf)]
os.environ["HF_TOKEN"] = token
try:
    publish.push("our-lab", private=False)
finally:
    del os.environ["HF_TOKEN"]
"""


def test_one_command_publishes_all_weights_and_pins_their_commits(hub, client, tmp_path):
    shelf, scripts = tmp_path / "shelf", str(Path(__file__).parents[1] / "examples" / "training")
    models = {"first": make_model(1), "second": make_model(2)}
    for name, model in models.items():
        pcvideo.hub.write_weights_folder(model, shelf / name, task="dots", dtype=torch.float32)
    answer = client.run(PUBLISH_ALL, shelf=str(shelf), scripts=scripts, token=TOKEN)
    assert answer.error is None, answer.message
    published = json.loads((shelf / "published.json").read_text())
    for name, model in models.items():
        assert published[name]["repository"] == f"our-lab/{name}"
        assert published[name]["revision"] == hub.repositories[f"our-lab/{name}"].branches["main"]
        shutil.rmtree(shelf / name)
        options = {"cache_dir": str(tmp_path / "cache")}
        answer = client.run(CATALOG + LOAD, shelf=str(shelf), setting={}, name=name, options=options)
        assert answer.error is None, answer.message
        assert answer.result == pytest.approx(prediction(model), abs=1e-6)
