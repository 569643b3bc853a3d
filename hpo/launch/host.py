"""What the kernel says of this machine's memory; nothing where it says nothing."""

from __future__ import annotations

from pathlib import Path

# A container's own count where it has one; else the machine's, which counts others' too.
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def memory_kills() -> int:
    """How many processes the kernel has ended for want of memory so far; 0 where it does not say."""
    for path in _COUNTERS:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
