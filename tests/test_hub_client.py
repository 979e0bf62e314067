# SPDX-License-Identifier: Apache-2.0
"""The real client of the Hub against a stand-in on loopback: download, resume, cache, offline, faults, push."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_client_process import ClientProcess
from hub_stand_in import TOKEN, StandIn

import pcvideo
from pcvideo import _files

LOAD = """
model = pcvideo.from_pretrained(name, **options)
frames = torch.linspace(0, 1, 2 * 8 * 8).view(1, 2, 1, 8, 8)
result = model(frames, 1).flatten().tolist()
"""
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def hub():
    with StandIn() as server:
        yield server


@pytest.fixture(scope="module")
def processes(hub, tmp_path_factory):
    """Two that are online and one that is offline; all import at the same time."""
    settings = [{}, {}, {"HF_HUB_OFFLINE": "1"}]
    started = [ClientProcess(hub.url, tmp_path_factory.mktemp("home"), **setting) for setting in settings]
    yield started
    for process in started:
        process.close()
    for process in started:
        process.wait()
        # The client logs every request in full, and every error was told with all that led to it.
        assert "canary" not in process.log.read_text().lower()


@pytest.fixture(scope="module")
def client(processes):
    return processes[0]


@pytest.fixture
def load(hub, client, tmp_path):
    """Load from the Hub into a cache of the test's own."""
    hub.requests.clear()

    def act(name, **options):
        return client.run(LOAD, name=name, options={"cache_dir": str(tmp_path / "cache"), **options})

    return act


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    numbers = {"in_channels": 1, "levels": 1, "channels": (4, 8), "hidden_channels": 4}
    return pcvideo.MSPN(**(numbers | options)).eval()


def files_of(model, folder, **options):
    model.save_pretrained(folder, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prediction(model):
    frames = torch.linspace(0, 1, 2 * 8 * 8).view(1, 2, 1, 8, 8)
    return model(frames, 1).flatten().tolist()


def asked_for(hub, ending):
    return [request for request in hub.requests if request.path.endswith(ending)]


# Downloading


def test_config_and_weights_come_from_one_commit_that_is_resolved_once(hub, load, tmp_path):
    model = make_model()
    commit = hub.publish("me/first", files_of(model, tmp_path / "out"))
    answer = load("me/first")
    assert (answer.error, answer.logged) == (None, [])
    assert answer.result == pytest.approx(prediction(model), abs=1e-6)
    assert sum("/api/models/" in request.path for request in hub.requests) == 1
    files = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert {path.split("/")[-1] for path in files} == {"config.json", "manifest.json", WEIGHTS}
    assert all(f"/resolve/{commit}/" in path for path in files)


def test_shards_come_by_their_index(hub, load, tmp_path):
    model = make_model()
    files = files_of(model, tmp_path / "out", max_shard_size=4000)
    assert sum(name.endswith(".safetensors") for name in files) > 2
    hub.publish("me/shards", {**files, "unrelated.safetensors": b"no"})
    assert load("me/shards").result == pytest.approx(prediction(model), abs=1e-6)
    assert not asked_for(hub, "unrelated.safetensors")


def test_a_branch_that_moves_after_it_was_resolved_changes_nothing(hub, load, tmp_path):
    old, new = make_model(), make_model(1, hidden_channels=5)
    hub.publish("me/moving", files_of(old, tmp_path / "old"))
    moved = files_of(new, tmp_path / "new")
    with hub.broken(after_resolution=lambda: hub.publish("me/moving", moved)):
        assert load("me/moving").result == pytest.approx(prediction(old), abs=1e-6)
    assert load("me/moving").result == pytest.approx(prediction(new), abs=1e-6)


def test_a_branch_a_tag_and_a_commit_are_taken_and_a_commit_that_is_cached_needs_no_server(hub, load, tmp_path):
    old, new = make_model(), make_model(1)
    commit = hub.publish("me/branches", files_of(old, tmp_path / "old"))
    hub.repositories["me/branches"].commit(files_of(new, tmp_path / "new"), branch="next/try")
    assert load("me/branches", revision="next/try").result == pytest.approx(prediction(new), abs=1e-6)
    assert load("me/branches", revision=commit).result == pytest.approx(prediction(old), abs=1e-6)
    hub.requests.clear()
    assert load("me/branches", revision=commit).result == pytest.approx(prediction(old), abs=1e-6)
    assert hub.requests == []
    answer = load("me/branches", revision="none")
    assert answer.error == "FileNotFoundError"
    assert "no branch, tag or commit 'none'" in answer.message
    assert load("me/branches", revision="../../x").error == "ValueError"


@pytest.mark.parametrize("no_range", [False, True], ids=["and is gone on with", "and is begun again"])
def test_a_download_that_is_cut_off_ends_whole(hub, load, tmp_path, no_range):
    name, model = f"me/cut-{int(no_range)}", make_model(2 + no_range)
    # The client keeps what came in pieces of 10 MiB.
    hub.publish(name, files_of(model, tmp_path / "out", metadata={"padding": "x" * 24 * 2**20}))
    with hub.broken(cuts=1, no_range=no_range):
        answer = load(name)
    assert answer.result == pytest.approx(prediction(model), abs=1e-6)
    parts = [request.part for request in hub.requests if request.method == "GET" and "/store/" in request.path]
    assert parts[:2] == [None, f"bytes={10 * 2**20}-"]
    # What is begun again may be asked for once more from its beginning.
    assert set(parts[2:]) <= ({None} if no_range else set())


def test_what_arrived_in_part_is_never_loaded(hub, load, client, tmp_path):
    model = make_model()
    hub.publish("me/partial", files_of(model, tmp_path / "out"))
    load("me/partial")
    cache = tmp_path / "cache" / "models--me--partial"
    (blob,) = {path.resolve() for path in cache.glob(f"snapshots/*/{WEIGHTS}")}
    blob.write_bytes(blob.read_bytes()[:-5])
    answer = load("me/partial")
    assert answer.error == "WeightsCorruptError"
    assert f"remove {cache} and load me/partial again" in answer.message
    shutil.rmtree(cache)
    assert load("me/partial").result == pytest.approx(prediction(model), abs=1e-6)


def test_two_processes_that_load_the_same_at_once_both_get_it(hub, processes, tmp_path):
    model = make_model()
    hub.publish("me/both", files_of(model, tmp_path / "out"))
    given = {"name": "me/both", "options": {"cache_dir": str(tmp_path / "cache")}}
    online = processes[:2]
    for process in online:
        process.run("")
    with hub.broken(slow=0.5):
        for process in online:
            process.begin(LOAD, **given)
        answers = [process.finish() for process in online]
    for answer in answers:
        assert answer.error is None, answer.message
        assert answer.result == pytest.approx(prediction(model), abs=1e-6)


# Without a server


def test_what_is_cached_loads_without_a_server_with_one_warning(hub, load, tmp_path):
    model = make_model()
    hub.publish("me/cached", files_of(model, tmp_path / "out"))
    load("me/cached")
    with hub.down():
        answer = load("me/cached")
        quiet = load("me/cached", local_files_only=True)
    assert answer.result == quiet.result == pytest.approx(prediction(model), abs=1e-6)
    assert len(answer.logged) == 1
    assert "can't be reached" in answer.logged[0]
    assert quiet.logged == []


@pytest.mark.parametrize("fault", ["down", "silent", "overloaded"])
def test_a_dead_server_is_told_within_ten_seconds_with_what_to_do(hub, load, fault):
    switches = {"down": {}, "silent": {"silent": True}, "overloaded": {"status": 503}}[fault]
    with hub.down() if fault == "down" else hub.broken(**switches):
        answer = load("me/unseen")
    assert answer.error == "ConnectionError"
    assert answer.seconds < 10
    assert "cache" in answer.message
    assert "check the network and HF_ENDPOINT" in answer.message
    assert hub.url in answer.message


def test_half_of_a_repository_in_the_cache_is_not_taken_for_all_of_it(hub, load, tmp_path):
    hub.publish("me/half", files_of(make_model(), tmp_path / "out"))
    load("me/half")
    (link,) = (tmp_path / "cache").glob(f"models--me--half/snapshots/*/{WEIGHTS}")
    link.unlink()
    answer = load("me/half", local_files_only=True)
    assert answer.error == "ConnectionError"
    assert "not (or not wholly) in the cache" in answer.message
    assert "local_files_only" in answer.message


def test_offline_mode_takes_the_cache_and_else_names_it_and_the_variable(hub, load, processes, tmp_path):
    model = make_model()
    hub.publish("me/offline", files_of(model, tmp_path / "out"))
    load("me/offline")
    hub.requests.clear()
    process = processes[2]
    options = {"cache_dir": str(tmp_path / "cache")}
    cached = process.run(LOAD, name="me/offline", options=options)
    absent = process.run(LOAD, name="me/unseen", options=options)
    push = process.run("pcvideo.hub.publish_folder(folder, 'me/x')", folder=str(tmp_path / "out"))
    assert cached.result == pytest.approx(prediction(model), abs=1e-6)
    assert len(cached.logged) == 1
    assert "HF_HUB_OFFLINE" in cached.logged[0]
    assert absent.error == push.error == "ConnectionError"
    assert str(tmp_path / "cache") in absent.message
    assert "HF_HUB_OFFLINE is set; unset it" in absent.message
    assert "HF_HUB_OFFLINE" in push.message
    assert absent.seconds < 2
    assert hub.requests == []


# What is not there, and what is not for everyone


def test_a_missing_repository_names_the_hub_and_how_to_log_in(hub, load):
    answer = load("me/nothing")
    assert answer.error == "FileNotFoundError"
    assert f"no repository me/nothing on {hub.url}" in answer.message
    assert "hf auth login" in answer.message


def test_a_typo_in_a_plain_name_asks_no_server(hub, load):
    answer = load("mspn-naturl")
    assert answer.error == "FileNotFoundError"
    assert "did you mean 'mspn-natural'" in answer.message
    assert hub.requests == []


def test_a_private_repository_takes_a_token_which_is_never_told(hub, load, client, tmp_path):
    model = make_model()
    hub.publish("me/private", files_of(model, tmp_path / "out"), private=True)
    refused = load("me/private")
    assert refused.error == "FileNotFoundError"
    assert "private" in refused.message
    assert load("me/private", token=TOKEN).result == pytest.approx(prediction(model), abs=1e-6)
    for wrong in (TOKEN + "x", TOKEN + "\n", TOKEN + " x", TOKEN + "é"):
        answer = load("me/private", token=wrong, revision="other")
        assert answer.error in ("FileNotFoundError", "ValueError")
    assert "canary" not in client.log.read_text().lower()


def test_a_gated_repository_says_where_to_ask(hub, load, tmp_path):
    hub.publish("me/gated", files_of(make_model(), tmp_path / "out"), gated=True)
    answer = load("me/gated")
    assert answer.error == "PermissionError"
    assert "ask for access" in answer.message


# What is there and must not be taken


def test_a_repository_of_pickles_is_refused_and_none_is_downloaded(hub, load):
    hub.publish("me/pickles", {"config.json": b"{}", "pytorch_model.bin": pickle.dumps({})})
    answer = load("me/pickles")
    assert answer.error == "FileNotFoundError"
    assert "'pytorch_model.bin', a pickle" in answer.message
    assert "convert" in answer.message
    assert not asked_for(hub, ".bin")


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/evil.safetensors", "C:\\evil.safetensors"])
def test_an_index_that_names_a_file_elsewhere_is_refused_before_anything_is_fetched(hub, load, tmp_path, name):
    files = files_of(make_model(), tmp_path / "out")
    index = json.dumps({"weight_map": {"a": name}}).encode()
    content = {"config.json": files["config.json"], "model.safetensors.index.json": index, name: files[WEIGHTS]}
    hub.repositories.pop("me/hostile", None)
    hub.publish("me/hostile", content)
    answer = load("me/hostile")
    assert answer.error == "WeightsCorruptError"
    assert "expected a plain name" in answer.message
    assert not [request for request in hub.requests if "evil" in request.path]
    assert not list(tmp_path.rglob("*evil*"))


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
