# SPDX-License-Identifier: Apache-2.0
"""A rank that raises, is killed or runs out of memory ends all, its error first; and the launcher's restart goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_helpers import rank, start_ranks
from training_helpers import Clips, self_feeding, tiny_trainer

import pcvideo
from pcvideo.training import newest_checkpoint
from pcvideo.training.checkpoint import load_checkpoint

LIMIT = 30.0  # seconds from the fault to the end of all


class Faulty(torch.nn.Module):
    """A loss in which rank 1 meets with a fault in its fourth step."""

    def __init__(self, fault: str, folder: Path) -> None:
        super().__init__()
        self.fault, self.folder, self.calls = fault, folder, 0

    def forward(self, predictions: Any, targets: Any) -> torch.Tensor:
        self.calls += 1
        if self.calls == 4 and rank() == 1:
            (self.folder / "fault").write_text(str(time.time()))
            if self.fault == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ((predictions[-1][0] - targets[-1][0]) ** 2).mean()


def train(folder: Path, fault: str, engine: str) -> None:
    strategy = self_feeding(loss=Faulty(fault, folder))
    tiny_trainer(folder, strategy, steps=10**6, checkpoint_every=2, engine=engine).fit(Clips())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("fault", "engine", "told"),
    [("is killed", "ddp", None), ("runs out of memory", "fsdp", "turn accumulate up")],
)
def test_a_rank_that_fails_ends_the_others_soon_and_they_say_that_it_was_not_they(
    fault: str, engine: str, told: str | None, tmp_path: Path
) -> None:
    processes = start_ranks(3, train, tmp_path, fault, engine, told=tmp_path)
    for process in processes:
        process.join(120)
    assert time.time() - float((tmp_path / "fault").read_text()) < LIMIT
    codes = [process.exitcode for process in processes]
    assert codes == [1, -signal.SIGKILL if fault == "is killed" else 1, 1]
    for number in (0, 2):
        last = (tmp_path / f"rank-{number}.txt").read_text().strip().splitlines()[-1]
        assert f"RankLostError: rank {number} stops, because another rank is gone" in last
    if told:
        assert told in (tmp_path / "rank-1.txt").read_text()
    # What was saved before is whole.
    assert load_checkpoint(newest_checkpoint(tmp_path))[0]["step"] == 2


SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    from training_helpers import Clips, tiny_trainer
    from pcvideo.training import SelfFeeding

    class Faulty(SelfFeeding):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            if self.calls == 4 and os.environ["RANK"] == "1":
                if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("the disk came off")
            return super().forward(batch)

    strategy = Faulty(context=2, horizon=2)
    tiny_trainer(Path(sys.argv[1]), strategy, steps=10**6, checkpoint_every=2).fit(Clips(), resume="auto")
"""


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again_from_the_checkpoint_and_tells_a_second_fault_first(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    places = [str(Path(pcvideo.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1
    # Steps 1 to 3, of which 2 were saved; then, gone on with, 3 to 5.
    assert newest_checkpoint(tmp_path / "run").name == "step-00000004"
    cause = done.stderr[done.stderr.index("Root Cause") :]
    assert re.search(r"rank\s+: 1 ", cause)
    assert "ValueError: the disk came off" in cause
