# SPDX-License-Identifier: Apache-2.0
"""Optional packages in one place: imported on first use, with an error that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, *, extra: str | None = None, purpose: str) -> ModuleType:
    """Import `module` now.

    Args:
        module: dotted name of the module.
        extra: the extra of this package that brings it; None where it is a core dependency.
        purpose: what it is needed for, as the end of "... is needed for".

    Raises:
        ImportError: the module is missing, with the command that installs it; or it is there and cannot be imported
            because it does not match the installed torch (a CPU torch beside a CUDA torchvision).
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".", maxsplit=1)[0]
        target = f'"pcvideo[{extra}]"' if extra else package
        raise ImportError(f"{package} is needed for {purpose}: pip install {target} ({error})") from error
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            f"{module} is needed for {purpose}, but the installed torch and torchvision do not match ({error}); "
            f"install both from the same package index: pip install --force-reinstall torch torchvision"
        ) from error
