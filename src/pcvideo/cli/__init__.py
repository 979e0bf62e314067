# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per command; everything else it does, the library does."""

from __future__ import annotations

__all__: list[str] = []
