# SPDX-License-Identifier: Apache-2.0
"""`python -m pcvideo` is the command line, for where its script is not on the path."""

from __future__ import annotations

from runpy import run_module

__all__: list[str] = []

if __name__ == "__main__":
    run_module("pcvideo.cli.main", run_name="__main__")
