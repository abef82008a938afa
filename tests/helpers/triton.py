"""Triton's kernels in tests: compiled on a GPU, interpreted without one."""

import importlib
import os
import sys
from types import ModuleType

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def kernels(name: str) -> ModuleType:
    """A module of kernels in statprune.core; a module of tests that asks for it is skipped where there is no Triton."""
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        if "triton" in sys.modules:
            pytest.skip("Triton was imported without TRITON_INTERPRET=1, which it reads then", allow_module_level=True)
        os.environ["TRITON_INTERPRET"] = "1"
    pytest.importorskip("triton")
    return importlib.import_module(f"statprune.core.{name}")
