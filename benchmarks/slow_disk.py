"""A disk that is slow as long as a file is there: a library that is loaded before those of a process (`LD_PRELOAD`)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    static const char *sign;
    struct stat file;
    if (!real) {
        real = dlsym(RTLD_NEXT, "write");
        sign = getenv("SLOW_DISK_SIGN");
    }
    if (sign && fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && access(sign, F_OK) == 0)
        usleep(150000);
    return real(fd, bytes, count);
}
"""


class SlowDisk:
    """Writes to regular files take 0.15 s longer between `begin` and `end`. None where there is no C compiler (`make`).

    `environment` is for the process whose disk it is.
    """

    def __init__(self, library: Path, sign: Path) -> None:
        self._sign = sign
        self.environment = {"LD_PRELOAD": str(library), "SLOW_DISK_SIGN": str(sign)}

    @classmethod
    def make(cls, folder: Path) -> SlowDisk | None:
        """Compile it."""
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        source, library = folder / "slow_disk.c", folder / "slow_disk.so"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        return cls(library, folder / "disk-is-slow")

    def begin(self) -> None:
        self._sign.touch()

    def end(self) -> None:
        self._sign.unlink(missing_ok=True)
