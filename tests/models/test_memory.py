"""Which errors mean that memory ran out, and what is measured of it."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import memory
from models.errors import DoesNotFit

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


def test_what_is_measured_is_divided_until_it_fits() -> None:
    tried: list[int] = []

    def measure() -> str:
        tried.append(memory.rows(1024, 64))
        if tried[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "measured"

    assert memory.divide_until_it_fits(measure) == "measured"
    assert tried == [16, 8, 4]


def test_what_fits_in_no_part_is_told_so_and_other_errors_as_they_are() -> None:
    def measure() -> None:
        memory.rows(1024, 64)
        raise MemoryError("no room")

    with pytest.raises(DoesNotFit, match="one sequence alone does not fit: no room"):
        memory.divide_until_it_fits(measure)
    with pytest.raises(ZeroDivisionError):
        memory.divide_until_it_fits(lambda: 1 // 0)


LIMITED = """
import pathlib, re, resource, sys
import torch
import models.next_token, models.warm
from models.configuration import Causal, TextData, Tokenizer
from models.language_modelling import Config, prepare, train

torch.set_num_threads(1)
source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
config = Config(
    data=TextData(source=source), tokenizer=Tokenizer(kind="bytes"), tokens=128 * 64 * 2, batch_size=64,
    model=Causal(layers=1, width=64, heads=2, context=128),
)
prepare(config)
taken = int(re.search(r"VmData:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
for name, limit in (("limited", taken + 30 * 2**20), ("free", resource.RLIM_INFINITY)):
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    for divide in (1, 2, 4, 8, 16, 32, 64):
        try:
            found = list(train(config, seed=0, rungs=[128 * 64], directory=folder / name, divide=divide))
        except Exception as error:
            print(name, divide, type(error).__name__)
        else:
            print(name, divide, *(item.metrics["validation/loss"] for item in found))
            break
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process maps")
def test_a_run_in_a_process_of_limited_memory_comes_to_the_same_curve_divided(tmp_path: Path) -> None:
    source = tmp_path / "words.txt"
    source.write_text("\n\n".join(f"the quick brown fox {n} jumps over {n * 7} lazy dogs" for n in range(900)) + "\n")
    command = [sys.executable, "-c", LIMITED, str(source), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *failed, limited, free = [line.split() for line in done.stdout.splitlines()]
    assert failed[0][:2] == ["limited", "1"]
    assert {line[2] for line in failed} <= {"RuntimeError", "MemoryError"}  # as torch and Python say it
    assert (limited[0], free[:2]) == ("limited", ["free", "1"])
    assert int(limited[1]) >= 2
    assert [float(loss) for loss in limited[2:]] == pytest.approx([float(loss) for loss in free[2:]], rel=1e-5)
