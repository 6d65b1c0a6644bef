import ctypes
import platform
import sys
from pathlib import Path

import pytest
import torch

from sparse_rnn.engine import library as module
from sparse_rnn.engine.library import Call, KernelPointers, Strides, kernels, library, pointer

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels are not built")


@pytest.fixture
def built_at(monkeypatch):
    """Makes the library be looked for somewhere else."""

    def built_at(path):
        monkeypatch.setattr(module, "BUILT", path)
        library.cache_clear()

    yield built_at
    library.cache_clear()


def test_without_a_library_there_are_no_kernels(built_at, tmp_path):
    built_at(tmp_path / "_kernels.so")
    assert library() is None
    with pytest.raises(RuntimeError, match="install a C compiler"):
        kernels()


def test_a_library_for_another_machine_is_as_none(built_at, tmp_path):
    (tmp_path / "_kernels.so").write_bytes(b"something else")
    built_at(tmp_path / "_kernels.so")
    assert library() is None


def test_a_library_of_other_sources_is_as_none(built_at):
    built_at(torch.__file__.replace("__init__.py", "lib/libtorch_cpu.so"))
    assert library() is None


@needs_kernels
def test_the_best_backend_is_chosen_and_another_can_be(backends):
    best, other = library().backend(), backends[0].encode()
    assert library().select(other)
    assert library().backend() == other
    assert not library().select(b"abacus")
    assert library().backend() == other
    assert library().select(None)
    assert library().backend() == best


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="needs x86-64 and /proc")
def test_processors_that_have_wide_vectors_use_them():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    widest = {"avx512f", "avx512dq", "avx512vl", "avx512bw"}
    best = "avx512" if flags >= widest else "avx2" if flags >= {"avx2", "fma"} else "plain"
    assert library().backend().decode() == best


def test_addresses_are_those_of_the_numbers():
    tensor = torch.arange(3.0)
    assert ctypes.c_float.from_address(pointer(tensor) + 4).value == 1
    assert pointer(None) is None


def test_structures_have_no_gaps():
    """As in C all members are of 8 bytes: a member that is missing on one side moves those behind it."""
    assert ctypes.sizeof(KernelPointers) == 8 * len(KernelPointers._fields_)
    structures = 4 * ctypes.sizeof(KernelPointers) + 2 * ctypes.sizeof(Strides)
    assert ctypes.sizeof(Strides) == 8 * len(Strides._fields_)
    assert ctypes.sizeof(Call) == 8 * (len(Call._fields_) - 3) + structures
