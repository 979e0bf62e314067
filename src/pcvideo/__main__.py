# SPDX-License-Identifier: Apache-2.0
"""`python -m pcvideo` is the command line, for where its script is not on the path."""

from __future__ import annotations

import sys

from pcvideo.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
