# SPDX-License-Identifier: Apache-2.0
"""The kernels without a GPU: in Triton's interpreter, compiled ahead for two architectures, and who runs when."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import DTYPES, LAYOUTS, OPS, SHAPES, check_agreement, draw_inputs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import pcvideo
from pcvideo import ops
from pcvideo.ops import _dispatch

HERE = Path(__file__).parent
PUBLIC = {"lstm_gates": ops.lstm_gates, "split_error": ops.split_error, "modulate": ops.modulate}
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
needs_compiler = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="TRITON_INTERPRET=1 takes the compiler's place"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
each_op = pytest.mark.parametrize("op", OPS)


@needs_triton
def test_in_the_interpreter_the_kernels_agree_with_the_definitions():
    source = str(Path(pcvideo.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "kernels_interpreted.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]


# By architecture the types of the tensors as Triton writes them: the first input's, and that of all others.
ELEMENTS = {80: [("fp32", "fp32"), ("bf16", "bf16")], 90: [("fp16", "fp32"), ("fp64", "fp64")]}
OF_THE_FIRST = {"gates", "grad_gates", "hidden", "grad_hidden", "inputs", "grad_inputs", "target"}


@needs_triton
@needs_compiler
@each_op
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("architecture", ELEMENTS)
def test_every_kernel_compiles_for_ampere_and_hopper(op, direction, architecture, tmp_path, monkeypatch):
    from triton import compile as compile_ahead
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # An empty cache, so that it is compiled now.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = importlib.import_module(f"pcvideo.ops.{op}.kernel")
    function = getattr(module, f"{direction}_kernel")
    for first, other in ELEMENTS[architecture]:
        _, _, constants = _dispatch.tile((2, 64, 32, 40), torch.contiguous_format)
        constants |= {"WIDE": first == "bf16", "DOUBLE": first == "fp64"}
        types = {argument: f"*{first if argument in OF_THE_FIRST else other}" for argument in function.arg_names}
        types |= {"outer": "i32", "run": "i32"} | dict.fromkeys(constants, "constexpr")
        # Pointers and lengths that are multiples of 16, as nearly all are.
        even = [place for place, argument in enumerate(function.arg_names) if argument not in {"outer", *constants}]
        source = ASTSource(
            function, types, constexprs=constants, attrs={(place,): [["tt.divisibility", 16]] for place in even}
        )
        compiled = compile_ahead(source, target=GPUTarget("cuda", architecture, 32), options={"enable_fp_fusion": True})
        assert f".target sm_{architecture}" in compiled.asm["ptx"]
        assert compiled.asm["cubin"][:4] == b"\x7fELF"
        # Sixteen bytes at a time, or half the memory's bandwidth is lost.
        assert ("ld.global.v2.b64" if first == "fp64" else "ld.global.v4.b32") in compiled.asm["ptx"]


class Recorder(TorchDispatchMode):
    """The names of the operations that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def stand_in_gpu(monkeypatch):
    """Tensors that say they are on a GPU and hold no values."""
    monkeypatch.setattr(_dispatch, "can_build_kernels", lambda: True)
    monkeypatch.setattr(_dispatch, "_is_new_enough", lambda device: True)
    with FakeTensorMode() as mode:
        yield mode


def operations_of(op, inputs):
    with Recorder() as recorder:
        output = PUBLIC[op](*inputs)
    return recorder.names, output


@each_op
def test_on_a_cpu_the_definition_runs(op):
    assert not any("pcvideo" in name for name in operations_of(op, draw_inputs(op, (2, 3, 4, 5)))[0])


def fake(op, device="cuda", dtype=torch.float32):
    """Inputs of the op without values."""
    return [torch.empty((2, width * 3, 4, 5) if width else (), device=device, dtype=dtype) for width in OPS[op].widths]


@each_op
def test_on_a_gpu_one_operation_runs(op, stand_in_gpu):
    names, output = operations_of(op, fake(op))
    # The gain loses its axes, and asking for a device counts too.
    names = [name for name in names if not name.startswith("prim.") and "view" not in name]
    assert names == [f"pcvideo.{op}.default"]
    assert (output[0] if op == "lstm_gates" else output).device.type == "cuda"


@each_op
@pytest.mark.parametrize("why", ["compiling", "no Triton", "an old GPU"])
def test_on_a_gpu_the_definition_runs_where_the_kernel_should_not(op, why, stand_in_gpu, monkeypatch):
    place = {
        "compiling": (torch.compiler, "is_compiling", lambda: True),
        "no Triton": (_dispatch, "can_build_kernels", lambda: False),
        "an old GPU": (_dispatch, "_is_new_enough", lambda device: False),
    }
    monkeypatch.setattr(*place[why])
    assert not any("pcvideo" in name for name in operations_of(op, fake(op))[0])


def test_whole_numbers_and_tensors_of_two_devices_take_the_definition(stand_in_gpu):
    whole, here, there = fake("split_error", dtype=torch.int32), torch.empty(2, 3), torch.empty(2, 3, device="cuda")
    assert not _dispatch.use_kernel(*whole)
    assert not _dispatch.use_kernel(here, there)
    assert not _dispatch.use_kernel(there, here)
    assert _dispatch.use_kernel(there, there)


def test_triton_that_cannot_build_counts_as_missing(monkeypatch):
    find = _dispatch.can_build_kernels.__wrapped__
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(_dispatch.Path, "exists", lambda path: True)
    monkeypatch.setenv("CC", "cc")
    assert find()
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name: None)
        assert not find()
    with monkeypatch.context() as without:
        without.delenv("CC")
        without.setenv("PATH", "")
        assert not find()
    with monkeypatch.context() as without:
        without.setattr(_dispatch.Path, "exists", lambda path: False)
        assert not find()


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (1, 64, 32, 40), (2, 2000, 1, 1), (4, 3), (0, 3, 4, 4), (2, 1, 5, 5)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_tiles_cover_every_value_and_no_tile_is_empty(shape, order):
    if order == torch.channels_last and len(shape) != 4:
        pytest.skip("only images have their channels last")
    outer, run, constants = _dispatch.tile(shape, order)
    rows, columns = constants["ROWS"], constants["COLUMNS"]
    assert outer * run == torch.Size(shape).numel()
    assert rows * columns == _dispatch.TILE
    covered = [
        (row, column) for row in range(0, outer, rows) for column in range(0, run, columns)
    ]  # fmt: skip
    assert _dispatch.programs(outer, run, constants) == len(covered)


def test_the_order_in_memory_is_told_apart_with_one_channel_too():
    frame = torch.zeros(2, 1, 4, 5)
    assert _dispatch.memory_order(frame) == torch.contiguous_format
    assert _dispatch.memory_order(frame.to(memory_format=torch.channels_last)) == torch.channels_last
    volume = torch.zeros(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    assert _dispatch.memory_order(volume) == torch.channels_last_3d
    assert _dispatch.memory_order(volume[..., ::2]) == torch.contiguous_format


@needs_gpu
@each_op
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_a_gpu_outputs_and_all_gradients_are_the_definitions(op, layout):
    serves = _dispatch.can_build_kernels() and torch.cuda.get_device_capability() >= (8, 0)
    for shape, dtypes in itertools.product(SHAPES.values(), DTYPES.values()):
        inputs = [tensor.detach().cuda().requires_grad_() for tensor in draw_inputs(op, shape, layout, dtypes)]
        if serves:
            check_agreement(op, PUBLIC[op], inputs)
        assert any("pcvideo" in name for name in operations_of(op, inputs)[0]) == serves


@needs_gpu
@each_op
def test_on_a_gpu_values_beyond_32_bits_are_reached(op):
    # More than 2**31 values in the widest tensor, and 16 bit, so that all fit into 40 GB.
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("the GPU has less than 40 GB free")
    shape = (3, 1, 2**15, 2**14 + 3)
    inputs = [
        torch.zeros((shape[0], width, *shape[2:]) if width else (), device="cuda", dtype=torch.float16)
        for width in OPS[op].widths
    ]
    for tensor in inputs:
        tensor.view(-1)[-1:].fill_(1.0)
    last = [tensor[-1:, :, -1:, -1:] if tensor.ndim else tensor for tensor in inputs]
    outputs, expected = OPS[op].fused(*inputs), OPS[op].reference(*(tensor.float() for tensor in last))
    for output, right in zip(
        outputs if isinstance(outputs, tuple) else (outputs,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        torch.testing.assert_close(output[-1:, :, -1:, -1:].float(), right, rtol=1e-3, atol=1e-6)
