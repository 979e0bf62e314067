# SPDX-License-Identifier: Apache-2.0
"""One step as a graph: in a loop it gives what `forward` gives, for any batch and any size that fits."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

import pcvideo
from pcvideo import MSPN, PPNV2
from pcvideo.cli.main import main
from pcvideo.export import export_step
from pcvideo.export._one_form import OneForm
from pcvideo.models import Predictor

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_loop.py"
NEEDED = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
with_onnx = pytest.mark.skipif(bool(NEEDED), reason=f"{', '.join(NEEDED)} missing: pip install 'pcvideo[export]'")
TINY = {"in_channels": 1, "levels": 1, "channels": (2, 3), "hidden_channels": 2}


def frames_of(model, batch, length, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (height * model.size_multiple, width * model.size_multiple)
    return torch.rand(batch, length, model.in_channels, *size, generator=generator)


def looped(step, init_state, frames, horizon, black_frames):
    """The loop around a graph: zeros, black frames, true frames, then what is fed back."""
    state = init_state
    for _ in range(black_frames):
        _, *state = step(torch.zeros_like(frames[:, 0]), state)
    future = []
    for time in range(frames.shape[1] + horizon - 1):
        prediction, *state = step(frames[:, time] if time < frames.shape[1] else state[0], state)
        future.append(prediction)
    return torch.stack(future[-horizon:], 1)


# Graphs take long to make, so each is made once.


@pytest.fixture(scope="module")
def mspn(tmp_path_factory):
    """The built-in weights, their graph, and a folder for its files."""
    model = pcvideo.from_pretrained("mspn-moving-mnist")
    return model, export_step(model), tmp_path_factory.mktemp("mspn")


@pytest.fixture(scope="module")
def ppnv2(tmp_path_factory):
    """The published form, whose second level begins with the second frame."""
    torch.manual_seed(0)
    model = PPNV2(channels=(3, 4), legacy=True).eval()
    return model, export_step(model), tmp_path_factory.mktemp("ppnv2")


@pytest.fixture(scope="module")
def mspn_onnx(mspn):
    path = mspn[2] / "step.onnx"
    mspn[1].save(path)
    return path


@pytest.fixture(scope="module")
def ppnv2_onnx(ppnv2):
    path = ppnv2[2] / "step.onnx"
    ppnv2[1].save(path)
    return path


@pytest.fixture(scope="module")
def onnx_loop():
    specification = importlib.util.spec_from_file_location("onnx_loop", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# ONNX

SIZES = pytest.mark.parametrize(
    ("batch", "length", "height", "width"), [(1, 10, 4, 4), (3, 2, 2, 7), (2, 1, 1, 1)], ids=str
)


@with_onnx
@pytest.mark.slow
@SIZES
def test_the_exported_mspn_gives_the_ten_frames_of_forward(mspn, mspn_onnx, onnx_loop, batch, length, height, width):
    model, frames = mspn[0], frames_of(mspn[0], batch, length, height, width)
    with torch.no_grad():
        expected = model(frames, 10).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(onnx_loop.predict(mspn_onnx, frames.numpy(), 10), expected, rtol=0, atol=1e-4)


@with_onnx
@pytest.mark.slow
@SIZES
def test_the_exported_ppnv2_gives_the_ten_frames_of_forward(ppnv2, ppnv2_onnx, onnx_loop, batch, length, height, width):
    model, frames = ppnv2[0], frames_of(ppnv2[0], batch, length, 2 * height, 2 * width)
    with torch.no_grad():
        expected = model(frames, 10).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(onnx_loop.predict(ppnv2_onnx, frames.numpy(), 10), expected, rtol=0, atol=1e-5)


@with_onnx
@pytest.mark.slow
def test_the_loop_in_numpy_runs_as_a_script_without_torch_and_without_this_package(mspn, mspn_onnx, tmp_path):
    frames = (255 * frames_of(mspn[0], 1, 3, 2, 2)[0]).byte()
    np.save(tmp_path / "clip.npy", frames.numpy())
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert not {'torch', 'pcvideo'} & sys.modules.keys()\n"
    )
    arguments = [str(EXAMPLE), str(mspn_onnx), str(tmp_path / "clip.npy"), "4", str(tmp_path / "future.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)
    expected = mspn[0].predict(frames, 4).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "future.npy"), expected, rtol=0, atol=1e-4)


@with_onnx
@pytest.mark.slow
def test_a_size_that_does_not_fit_is_told_by_the_loop(mspn_onnx, onnx_loop):
    with pytest.raises(ValueError, match="multiples of 16, got 40x64; pad the frames to 48x64"):
        onnx_loop.predict(mspn_onnx, np.zeros((1, 2, 1, 40, 64), np.float32), 2)


@with_onnx
@pytest.mark.slow
def test_the_description_beside_the_graph_names_its_inputs_and_outputs(mspn, mspn_onnx, onnx_loop):
    import onnx
    import onnxruntime

    description = json.loads(Path(f"{mspn_onnx}.json").read_text())
    session = onnxruntime.InferenceSession(str(mspn_onnx))
    state = description["state"]
    assert [value.name for value in session.get_inputs()] == ["frame", *(entry["input"] for entry in state)]
    assert [value.name for value in session.get_outputs()] == ["prediction", *(entry["output"] for entry in state)]
    assert (description["model"], description["size_multiple"], description["file"]) == ("MSPN", 16, "step.onnx")
    assert sorted(path.name for path in mspn_onnx.parent.glob("*.onnx*")) == ["step.onnx", "step.onnx.json"]
    # No operator but ONNX' own, and no control flow.
    graph = onnx.load(mspn_onnx)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in graph.graph.node}


# torch


@pytest.mark.skipif(torch.__version__.startswith("2.7."), reason="torch 2.7 can't load a program of open sizes again")
@pytest.mark.slow
def test_the_saved_torch_program_gives_the_frames_of_forward(mspn):
    model, exported, folder = mspn
    exported.save(folder / "step.pt2")
    description = json.loads((folder / "step.pt2.json").read_text())
    program = torch.export.load(folder / "step.pt2").module()
    frames = frames_of(model, 3, 3, 2, 5)
    with torch.no_grad():
        expected = model(frames, 3)
        zeros = [torch.zeros_like(tensor) for tensor in leaves(model, frames)]
        future = looped(program, zeros, frames, 3, description["black_frames"])
    torch.testing.assert_close(future, expected, rtol=0, atol=1e-5)
    odd = frames[..., :40, :64]
    with pytest.raises(Exception, match=r"(?i)guard|divisible|shape"):
        program(odd[:, 0], zeros)


def leaves(model, frames):
    from pcvideo.rollout import flatten_state

    return list(flatten_state(model.init_state(frames[:, 0])).values())


# What the state's tensors are


@pytest.mark.parametrize("size", [(1, 2, 3), (4, 5, 2)], ids=str)
@pytest.mark.parametrize("which", ["mspn", "ppnv2"])
@pytest.mark.slow
def test_the_described_shapes_are_those_of_the_state(which, size, request):
    model, exported, _ = request.getfixturevalue(which)
    batch, height, width = size[0], size[1] * model.size_multiple, size[2] * model.size_multiple
    sizes = {"batch": batch, "height": height, "width": width}

    def number(axis):
        name, _, share = str(axis).partition(" / ")
        return sizes[name] / int(share or 1) if name in sizes else axis

    found = [tuple(map(number, entry["shape"])) for entry in exported.description["state"]]
    frames = torch.zeros(batch, 1, model.in_channels, height, width)
    if which == "mspn":
        assert found == [tuple(tensor.shape) for tensor in leaves(model, frames)]
    else:
        # Predictions and cells of both levels, and the age.
        fine, coarse = (batch, 3, height, width), (batch, 4, height // 2, width // 2)
        assert found == [fine, coarse, fine, fine, coarse, coarse, (1,)]


@pytest.mark.parametrize(
    "options",
    [
        {"channels": (3, 4, 5, 6)},
        {"channels": (3, 4, 5), "legacy": True, "merge": "concat"},
        {"channels": (3, 4, 5), "merge": "add", "hidden_channels": (4, 3, 2)},
        {"channels": (3, 4, 5), "patch": 2, "residual": True, "clamp": True},
        {"channels": (3,), "residual": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 2, 6])
def test_a_ppnv2_of_one_form_predicts_the_same_from_the_first_frame_on(options, length):
    torch.manual_seed(1)
    model = PPNV2(**options).double().eval()
    frames = frames_of(model, 2, length, 3, 4).double()
    with torch.no_grad():
        expected = model(frames, 5)
        one_form = OneForm(model)
        state, future, frame = one_form.init_state(frames[:, 0]), [], None
        for time in range(length + 4):
            pyramid, state = one_form.step(frames[:, time] if time < length else frame, state)
            frame = pyramid[0]
            future.append(one_form.to_frames(frame))
    torch.testing.assert_close(torch.stack(future[length - 1 :], 1), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_model_that_was_exported_is_the_one_that_it_was(ppnv2):
    model, exported, _ = ppnv2
    torch.manual_seed(0)
    fresh = PPNV2(channels=(3, 4), legacy=True).eval()
    assert model.state_dict().keys() == fresh.state_dict().keys()
    frames = frames_of(model, 1, 3, 2, 2)
    with torch.no_grad():
        assert torch.equal(model(frames, 2), fresh(frames, 2))
    assert {entry["dtype"] for entry in exported.description["state"]} == {"float32"}


# The command


def test_the_command_writes_a_graph_and_its_description(tmp_path, capsys):
    torch.manual_seed(0)
    MSPN(**TINY).save_pretrained(tmp_path / "tiny")
    assert main(["export", str(tmp_path / "tiny"), str(tmp_path / "new" / "step.pt2")]) == 0
    assert "then one black frame" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["step.pt2", "step.pt2.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mspn-moving-mnist", "step.bin"], "path must end in .onnx or .pt2"),
        (["mspn-moving-mnits", "step.pt2"], "did you mean 'mspn-moving-mnist'"),
    ],
)
def test_a_wrong_name_or_ending_is_told_at_once(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_its_packages_onnx_is_refused_with_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "mspn-moving-mnist", str(tmp_path / "step.onnx")]) == 2
    assert 'pip install "pcvideo[export]"' in capsys.readouterr().err


# Models that no graph can hold

Memory = namedtuple("Memory", "prediction other")


class Toy(Predictor):
    """Predicts a share of the frame; what it carries is given by its tests."""

    def __init__(self, start=torch.zeros_like, grow=False, forget=False):
        super().__init__(in_channels=1)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.start, self.grow, self.forget = start, grow, forget

    def init_state(self, like):
        return Memory(torch.zeros_like(like), self.start(like))

    def step(self, frame, state):
        prediction = self.weight * frame
        other = torch.cat([state.other, frame]) if self.grow else 0.5 * state.other + 1
        return [prediction], Memory(0 * prediction if self.forget else prediction, other)


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (torch.nn.Conv2d(1, 1, 1), TypeError, "model must be a predictor"),
        (Toy(grow=True), TypeError, "the state of Toy changes its form in its first step"),
        (Toy(forget=True), TypeError, "does not hold its prediction"),
        (Toy(start=lambda like: 3 * torch.ones_like(like)), ValueError, "neither zeros nor one black frame give other"),
    ],
    ids=["no predictor", "growing", "forgetful", "other start"],
)
def test_what_can_not_be_a_graph_is_refused_by_what_is_wrong(model, kind, words):
    with pytest.raises(kind, match=words):
        export_step(model)
