"""Reads from the kernel's log to which address a process jumped when it was killed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

# The form in which the kernel's show_signal_msg() writes it on x86.
FAULT = re.compile(r"\[(\d+)\]: segfault at ([0-9a-f]+) ip ([0-9a-f]+)")


class KernelLog:
    """The log from now on. Process numbers are reused, so earlier lines may concern
    other processes. It is empty if the log may not be read."""

    def __init__(self) -> None:
        self.text = ""
        self.descriptor: int | None = None
        try:
            self.descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self.descriptor, 0, os.SEEK_END)
        except OSError:
            self.close()

    def close(self) -> None:
        """Stops reading."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def read(self) -> None:
        """Reads the records that have been logged."""
        while self.descriptor is not None:
            try:
                self.text += os.read(self.descriptor, 8192).decode(errors="replace")
            except BrokenPipeError:
                # The next record was overwritten before it was read; the next call
                # returns the one after it.
                continue
            except BlockingIOError:
                return
            except OSError:
                self.close()

    def first_fault(self, processes: Collection[int]) -> str | None:
        """Returns the first bad access by one of the processes. After a jump, the address
        of the access is that of the instruction."""
        self.read()
        for process, address, instruction in FAULT.findall(self.text):
            if int(process) in processes:
                kind = "jump" if int(address, 16) == int(instruction, 16) else "access"
                return f"{kind} to 0x{int(address, 16):x}"
        return None
