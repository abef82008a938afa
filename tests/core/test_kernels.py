"""Where Triton's kernels are used: on a GPU, where they can be built."""

from types import SimpleNamespace

import pytest

from statprune.core import kernels


@pytest.mark.parametrize(("is_cuda", "is_there"), [(True, True), (True, False), (False, True)])
def test_kernels_are_used_on_a_gpu_where_they_can_be_built(monkeypatch, is_cuda, is_there):
    monkeypatch.setattr(kernels, "available", lambda: is_there)
    assert kernels.has_kernel(SimpleNamespace(is_cuda=is_cuda)) is (is_cuda and is_there)


@pytest.mark.parametrize("missing", ["find_spec", "which"])
def test_without_triton_or_a_compiler_none_can_be_built(monkeypatch, missing):
    kernels.available.cache_clear()
    monkeypatch.setattr(kernels, missing, lambda name: None)
    assert not kernels.available()
    kernels.available.cache_clear()
