"""Which version of a file was read: by what the file system says of it, not by its content."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class FileVersion(msgspec.Struct, frozen=True):
    """A file as it was at one moment: two that are equal have the same content.

    `real_path` follows symbolic links (Kubernetes swaps the link `..data` of a mounted ConfigMap or Secret); `state` is
    inode, size, and the times of the last change of content and of inode in nanoseconds. None: there was no file.
    """

    path: str
    real_path: str
    state: tuple[int, int, int, int] | None


def version_of(path: str) -> FileVersion:
    """The version that is there now."""
    real_path = path
    try:
        real_path = os.path.realpath(path)
        entry = Path(real_path).stat()
    except (OSError, ValueError):
        return FileVersion(path, real_path, None)
    return FileVersion(path, real_path, (entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns))


class FilesRead:
    """Collects the versions of the files that one reading of the settings looks at."""

    def __init__(self) -> None:
        self._versions: dict[str, FileVersion] = {}

    def note(self, path: str) -> None:
        """To be called before the file is opened: a version that is older than the content is noticed later on."""
        if path not in self._versions:
            self._versions[path] = version_of(path)

    def versions(self) -> tuple[FileVersion, ...]:
        """Of all of them, by path."""
        return tuple(version for _, version in sorted(self._versions.items()))
