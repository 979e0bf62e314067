# SPDX-License-Identifier: Apache-2.0
"""A process in which the real client of the Hub works; it reads the Hub's address when it is imported.

Started once for many tests, as importing takes seconds. It reads one line of JSON for each piece of code, runs it, and
answers with what the code left in `result`, or the error, and what was logged meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pcvideo

__all__ = ["Answer", "ClientProcess"]

_LOOP = """
import json, logging, os, sys, time, traceback

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import huggingface_hub, torch, pcvideo

class Keep(logging.Handler):
    def emit(self, record):
        logged.append(self.format(record))

logged = []
# With all details, since a token must not be among them.
logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
logging.getLogger("pcvideo").addHandler(Keep(level=logging.WARNING))
torch.set_num_threads(1)
answers.write("ready\\n"); answers.flush()
for line in sys.stdin:
    request = json.loads(line)
    logged.clear()
    space = {"pcvideo": pcvideo, "torch": torch, "os": os, "result": None, **request["given"]}
    start = time.monotonic()
    answer = {"error": None, "message": ""}
    try:
        exec(request["code"], space)
        answer["result"] = space["result"]
    except BaseException as error:
        traceback.print_exc()
        answer |= {"error": type(error).__name__, "message": str(error), "result": None}
    answer |= {"seconds": time.monotonic() - start, "logged": list(logged)}
    answers.write(json.dumps(answer) + "\\n"); answers.flush()
"""


class Answer(NamedTuple):
    """What came of a piece of code."""

    result: Any
    error: str | None
    message: str
    logged: list[str]
    seconds: float


class ClientProcess:
    """The process, its client turned to the Hub at `url`, with a home of its own; what it says goes to `log`."""

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        source = str(Path(pcvideo.__file__).parents[1])
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "PCVIDEO"))}
        own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "said.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            env={**ours, **own, "NO_PROXY": "127.0.0.1,localhost", "PYTHONPATH": path, **environment},
            text=True,
        )

    def begin(self, code: str, **given: Any) -> None:
        """Let it run a piece of code, with these names given (JSON), without waiting for the answer."""
        self.process.stdin.write(json.dumps({"code": code, "given": given}) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Answer:
        """The answer to what was begun."""
        line = self.process.stdout.readline()
        if line == "ready\n":
            line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return Answer(**json.loads(line))

    def run(self, code: str, **given: Any) -> Answer:
        self.begin(code, **given)
        return self.finish()

    def close(self) -> None:
        """Let it end; `wait` then waits until it has."""
        self.process.stdin.close()

    def wait(self) -> None:
        self.process.wait(60)
