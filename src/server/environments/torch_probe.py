"""Says which torch a Python has, and what else that torch needs: one JSON object on standard output.

Run by ``shared-torch.ts`` with the host's own Python, with ``-I``. Reads metadata of installed distributions and
imports none of them: importing torch takes seconds, and may take a GPU. Standard library only; Python 3.10 and later.
"""

import csv
import importlib.metadata as metadata
import json
import os
import re
import site
import sys

# Compiled against one exact version of torch, so a process that has the host's torch must have the host's of these.
COMPANIONS = ("torchvision", "torchaudio")


def canonical(name: str) -> str:
    """The one spelling of a distribution's name that compares equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def folders() -> list[str]:
    """Where a plain start of this Python looks for packages."""
    path = list(sys.path)
    # -I leaves out the user's own site-packages, which the host, started plainly, sees.
    if sys.prefix == sys.base_prefix:
        path.append(site.getusersitepackages())
    return path


def state(folder: str) -> str | None:
    """What changes when something is installed there; None where there is no such folder."""
    try:
        return str(os.stat(folder).st_mtime_ns)
    except OSError:
        return None


def installed(path: list[str]) -> dict[str, metadata.Distribution]:
    """Every distribution that is there, the first of a name, by canonical name."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=[folder for folder in path if os.path.exists(folder)]):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonical(name), distribution)
    return found


def requirements(distribution: metadata.Distribution) -> list[str]:
    """What the distribution requires, without its extras. Other markers stay: what isn't installed isn't shared."""
    lines = distribution.requires or []
    return [line for line in lines if "extra" not in line.partition(";")[2]]


def closure(names: list[str], found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """The named distributions and all that they require, as far as installed."""
    reached: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in reached or name not in found:
            continue
        reached[name] = found[name]
        for line in requirements(found[name]):
            match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
            if match:
                waiting.append(canonical(match.group()))
    return reached


def modules(distribution: metadata.Distribution) -> set[str]:
    """The distribution's top-level import names."""
    declared = distribution.read_text("top_level.txt")
    names = set(declared.split()) if declared else set()
    for path in files(distribution):
        if path.endswith((".py", ".so", ".pyd")):
            first, slash, _ = path.partition("/")
            names.add(first if slash else first.split(".")[0])
    return {name for name in names if name.isidentifier()}


def files(distribution: metadata.Distribution) -> list[str]:
    """The distribution's files, with forward slashes. torch has 15,000: a path object for each would take 0.2 s."""
    record = distribution.read_text("RECORD")
    if record is None:
        return [each.as_posix() for each in distribution.files or []]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def main() -> None:
    """Prints what ``shared-torch.ts`` declares; ``torch`` is null if there is none."""
    path = folders()
    # Before they are looked into: what comes meanwhile is found to have changed them.
    states = [[folder, state(folder)] for folder in path]
    found = installed(path)
    torch = found.get("torch")
    report: object = None
    if torch is not None:
        reached = closure(["torch", *COMPANIONS], found)
        home = str(torch.locate_file(""))
        others = (str(distribution.locate_file("")) for distribution in reached.values())
        report = {
            "version": torch.version,
            "sitePackages": home,
            "locations": list(dict.fromkeys([home, *others])),
            "modules": sorted(set().union(*map(modules, reached.values()))),
            "distributions": sorted(reached),
            "requirements": sorted({line for one in reached.values() for line in requirements(one)}),
        }
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    executable = os.path.realpath(sys.executable)
    print(json.dumps({"python": minor, "executable": executable, "folders": states, "torch": report}))


main()
