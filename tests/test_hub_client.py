# SPDX-License-Identifier: Apache-2.0
"""The real client of the Hub loads from a stand-in on loopback: download, resume, cache, offline, private, faults."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
from hub_helpers import LOAD, WEIGHTS, files_of, make_model, prediction
from hub_stand_in import TOKEN


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


def test_a_commit_that_is_none_names_no_folder(hub, load, tmp_path):
    hub.publish("me/crooked", files_of(make_model(), tmp_path / "out"))
    repository = hub.repositories["me/crooked"]
    repository.commits["../../evil"] = repository.commits[repository.branches["main"]]
    repository.branches["main"] = "../../evil"
    answer = load("me/crooked")
    assert answer.error == "OSError"
    assert "gave '../../evil' as the commit" in answer.message
    assert not list(tmp_path.rglob("*evil*"))


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
