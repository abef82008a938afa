"""Where Triton's kernels are used: on a GPU, where they can be built."""

from types import SimpleNamespace

import pytest

from statprune.core import kernels


@pytest.mark.parametrize(("is_cuda", "is_there"), [(True, True), (True, False), (False, True)])
def test_kernels_are_used_on_a_gpu_where_they_can_be_built(monkeypatch, is_cuda, is_there):
    monkeypatch.setattr(kernels, "available", lambda: is_there)
    assert kernels.has_kernel(SimpleNamespace(is_cuda=is_cuda)) is (is_cuda and is_there)


@pytest.mark.parametrize(("capability", "is_new"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_half_precision_is_multiplied_from_ampere_on(monkeypatch, capability, is_new):
    monkeypatch.setattr(kernels, "available", lambda: True)
    monkeypatch.setattr(kernels.torch.cuda, "get_device_capability", lambda device: capability)
    assert kernels.multiplies_halves(SimpleNamespace(is_cuda=True, device="cuda")) is is_new
    assert not kernels.multiplies_halves(SimpleNamespace(is_cuda=False, device="cpu"))


@pytest.mark.parametrize("missing", ["find_spec", "which"])
def test_without_triton_or_a_compiler_none_can_be_built(monkeypatch, missing):
    kernels.available.cache_clear()
    monkeypatch.setattr(kernels, missing, lambda name: None)
    assert not kernels.available()
    kernels.available.cache_clear()
