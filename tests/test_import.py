# SPDX-License-Identifier: Apache-2.0
"""`import pcvideo` is quick, silent and leaves everything as it was; each measured in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pcvideo

# torch is imported first, and sympy, which torch 2.7 imports late: what they do and bring is not ours. Audit hooks
# can't be taken off, so nothing slips by.
PROBE = """
import json, random, sys, time, warnings
import numpy, sympy, torch

def state():
    return {
        "numpy": numpy.random.get_state()[1].tolist(),
        "random": random.getstate()[1][:3],
        "torch": torch.get_rng_state().tolist(),
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "filters": [str(entry) for entry in warnings.filters],
    }

def watch(event, details):
    writes = event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+")
    if event.startswith(("socket.", "subprocess.", "os.system", "os.mkdir", "os.remove", "os.rename")) or writes:
        events.append(f"{event} {details}")

events = []
before, modules = state(), set(sys.modules)
sys.addaudithook(watch)
start = time.perf_counter()
import pcvideo
seconds = time.perf_counter() - start
json.dump({
    "seconds": seconds,
    "modules": sorted(set(sys.modules) - modules),
    "events": events,
    "changed": [name for name, value in state().items() if value != before[name]],
    "cuda": torch.cuda.is_initialized(),
}, sys.stdout)
"""

# What a module of ours may need one day, but `import pcvideo` never.
HEAVY = {
    "PIL", "av", "gradio", "h5py", "huggingface_hub", "imageio", "lpips", "matplotlib", "onnx", "onnxruntime",
    "onnxscript", "pytest", "rawpy", "scipy", "skimage", "tensorboard", "tifffile", "torchvision", "tqdm", "triton",
}  # fmt: skip
LIMIT = 2.0  # seconds on top of torch
TRIES = 3  # other work on the machine can only make it slower


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds the same pcvideo and writes no bytecode."""
    source = str(Path(pcvideo.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_probe() -> dict[str, Any]:
    finished = run_python("-c", PROBE)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def probe() -> dict[str, Any]:
    return run_probe()


def test_importing_says_nothing_even_where_warnings_are_errors() -> None:
    finished = run_python("-W", "error", "-c", "import pcvideo")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_importing_takes_under_two_seconds_on_top_of_torch(probe: dict[str, Any]) -> None:
    seconds = probe["seconds"]
    for _ in range(TRIES - 1):
        if seconds < LIMIT:
            break
        seconds = min(seconds, run_probe()["seconds"])
    assert seconds < LIMIT


def test_importing_opens_no_socket_starts_no_process_and_writes_no_file(probe: dict[str, Any]) -> None:
    assert probe["events"] == []


def test_importing_brings_no_optional_or_heavy_package(probe: dict[str, Any]) -> None:
    brought = {module.split(".")[0] for module in probe["modules"]}
    assert "pcvideo" in brought
    assert sorted(brought & HEAVY) == []


def test_importing_leaves_random_numbers_defaults_warnings_and_the_gpu_alone(probe: dict[str, Any]) -> None:
    assert probe["changed"] == []
    assert probe["cuda"] is False


def test_the_probe_notices_sockets_files_processes_and_heavy_packages(tmp_path: Path) -> None:
    (tmp_path / "pcvideo.py").write_text(
        "import socket, subprocess, sys, PIL.Image, random\n"
        "socket.socket().close()\n"
        f"open({str(tmp_path / 'trace')!r}, 'w').close()\n"
        "subprocess.run([sys.executable, '-c', ''])\n"
        "random.random()\n"
    )
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROBE}"
    found = json.loads(run_python("-c", script).stdout)
    assert [event.split()[0] for event in found["events"]] == ["socket.__new__", "open", "subprocess.Popen"]
    assert "PIL" in {module.split(".")[0] for module in found["modules"]} & HEAVY
    assert found["changed"] == ["random"]
