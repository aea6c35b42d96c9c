"""The three folders of a run, and the names allowed inside them.

Owns: turning a name out of a workflow into a path. Every path returned lies, symbolic links followed, inside the folder
it was asked for. Writes files only under names that are still
free, and reads none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

IMAGE_SUFFIXES = frozenset({".apng", ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
NAMES_SHOWN_MAX = 8  # in an error message
COUNTER_TRIES_MAX = 10_000  # names lost to other writers before giving up


@dataclass(frozen=True)
class Folder:
    """A folder that the runner names in an environment variable; `kind` is ComfyUI's word for it."""

    kind: str
    variable: str

    def root(self) -> Path:
        """Return the folder, links followed. Raises RuntimeError where its variable is unset."""
        value = os.environ.get(self.variable)
        if not value:
            raise RuntimeError(f"{self.variable} is not set: it names the {self.kind} folder")
        return Path(value).resolve()

    def inside(self, name: str) -> Path:
        """Return the path of `name` in this folder, links followed; it need not exist.

        Raises ValueError for an absolute name, one with `..` in it, and one that a link leads out of the folder.
        """
        parts = PureWindowsPath(name)  # Splits at both kinds of slash.
        if "\0" in name or ".." in parts.parts or parts.anchor or PurePosixPath(name).is_absolute():
            raise ValueError(f"{name!r} must be a relative path inside the {self.kind} folder, without '..'")
        root = self.root()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"{name!r} leads out of the {self.kind} folder {root} by a symbolic link")
        return path


INPUT = Folder("input", "AIRLOCK_INPUT_DIR")
OUTPUT = Folder("output", "AIRLOCK_OUTPUT_DIR")
TEMP = Folder("temp", "AIRLOCK_TEMP_DIR")


def image_names(folder: Folder) -> list[str]:
    """Return the names of the image files at the top of `folder`, sorted; none where the folder is not there."""
    if not os.environ.get(folder.variable):
        return []
    root = folder.root()
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())


def find_image(name: str) -> Path:
    """Return the path of an existing file that a workflow names.

    The name is relative to the input folder, or, as in ComfyUI, to the one named after it: `a.png [output]`.
    Raises ValueError (see `Folder.inside`), or FileNotFoundError, which says where it looked and what there is.
    """
    folder = INPUT
    for other in (INPUT, OUTPUT, TEMP):
        if name.endswith(f" [{other.kind}]"):
            folder, name = other, name.removesuffix(f" [{other.kind}]")
    path = folder.inside(name)
    if path.is_file():
        return path
    names = image_names(folder)
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    there = f"it has {shown}{more}" if names else "it has no images"
    raise FileNotFoundError(
        f"no file {name!r} in the {folder.kind} folder {folder.root()} ({folder.variable}): {there}"
    )


@dataclass(frozen=True)
class Series:
    """Numbered files `<stem>_<counter>_.png` in one folder, each created once and never overwritten."""

    directory: Path
    stem: str
    subfolder: str
    """`directory` relative to the run's folder, with forward slashes; empty for the folder itself."""

    @classmethod
    def open(cls, folder: Folder, prefix: str) -> "Series":
        """Return the series of `prefix`, which may name subfolders; they are made. Raises ValueError."""
        name = prefix.replace("\\", "/")
        subfolder, _, stem = name.rpartition("/")
        if not stem:
            raise ValueError(f"filename_prefix {prefix!r} does not end in a file name")
        folder.inside(name)
        directory = folder.inside(subfolder)
        directory.mkdir(parents=True, exist_ok=True)
        written = PurePosixPath(subfolder).as_posix()
        return cls(directory, stem, "" if written == "." else written)

    def write(self, batch: int, content: bytes) -> str:
        """Write the next file, counting on after the last there is, and return its name; `%batch_num%` becomes `batch`.

        Another writer may take a counter first: creation is exclusive, so the next one is tried then. A file that
        cannot be written whole is removed.
        """
        stem = self.stem.replace("%batch_num%", str(batch))
        first = max(self._counters(stem), default=0) + 1
        for counter in range(first, first + COUNTER_TRIES_MAX):
            path = self.directory / f"{stem}_{counter:05}_.png"
            try:
                file = path.open("xb")
            except FileExistsError:
                continue
            try:
                with file:
                    file.write(content)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return path.name
        raise FileExistsError(f"no free name for {stem}_{first:05}_.png in {self.directory}")

    def _counters(self, stem: str) -> Iterator[int]:
        start = os.path.normcase(f"{stem}_")
        for entry in os.scandir(self.directory):
            if os.path.normcase(entry.name).startswith(start):
                digits = entry.name[len(start) :].split("_")[0].split(".")[0]
                if digits.isascii() and digits.isdecimal():
                    yield int(digits)
