"""Which errors mean that memory ran out, and what is measured of it."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from models import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_an_error_of_exhausted_memory_is_known(error: Exception) -> None:
    assert memory.is_exhausted(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
    ],
)
def test_another_error_is_not_taken_for_one(error: BaseException) -> None:
    assert not memory.is_exhausted(error)


def test_what_torch_and_numpy_say_here_is_known() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**57)
    assert memory.is_exhausted(of_torch.value)
    assert memory.is_exhausted(of_numpy.value)


def test_the_peak_of_a_process_is_in_gib_and_holds_what_was_freed() -> None:
    code = (
        "import torch; from models import memory; cpu = torch.device('cpu'); before = memory.peak_gib(cpu);"
        "x = torch.ones(2**27, dtype=torch.uint8); del x; memory.forget_peak(cpu);"
        "print(before, memory.peak_gib(cpu))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 0.05 < before < 4
    assert after == pytest.approx(before + 0.125, abs=0.05)


def test_a_division_holds_for_what_is_done_within_it_alone() -> None:
    division = memory.Division(4)
    with division:
        assert memory.rows(1024, 64) == 4
        assert memory.rows(1024, 5000) == 1
    assert memory.rows(1024, 64) == 16
    assert memory.rows(1024, 0) == 1024
    assert division.rows == 1
