"""A forked child that becomes a worker: what the interpreter of the pack's environment would have started as.

Its parent, :mod:`comfy_airlock.runtime.fork_server`, has imported torch without any environment. So what tells one
environment from another is made up for here: descriptors, variables, where packages are found, and modules that the
environment has itself.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import site
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn

from comfy_airlock.runtime import boot
from comfy_airlock.runtime.lifeline import LIFELINE_DESCRIPTOR
from comfy_airlock.runtime.shared_torch import SharedTorchFinder
from comfy_airlock.runtime.stacks import STACKS_DESCRIPTOR

_SIZE: Final = Struct("<I")
_OWN: Final = ("comfy_airlock", "__main__", "__mp_main__")


class Start(NamedTuple):
    """A worker that is to be.

    Attributes:
        python: the interpreter of its environment.
        folder: the pack's.
        output, lifeline, stacks: descriptors, which become 1 and 2, 3, and 4.
    """

    python: str
    folder: str
    output: int
    lifeline: int
    stacks: int


class Loaded(NamedTuple):
    """A top-level module or package, with all in it, that was imported and is not of the standard library."""

    name: str
    is_compiled: bool
    version: str | None


def loaded_modules() -> list[Loaded]:
    """Those that a forked child has before its environment was ever looked at."""
    found: dict[str, Loaded] = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in _OWN:
            continue
        before = found.get(top, Loaded(top, is_compiled=False, version=None))
        is_compiled = before.is_compiled or (getattr(module, "__file__", None) or "").endswith(".so")
        version = getattr(module, "__version__", None) if name == top else before.version
        found[top] = Loaded(top, is_compiled, None if version is None else str(version))
    return list(found.values())


_LOOKED_FOR: Final = ("numpy", "opt_einsum")
"""What torch uses where it finds it as it is imported."""


def site_packages(python: str) -> str:
    """Where the environment of this interpreter has its packages."""
    # Free-threaded builds have folders of their own.
    threads = "t" if "t" in getattr(sys, "abiflags", "") else ""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}{threads}"
    return os.path.join(os.path.dirname(os.path.dirname(python)), "lib", version, "site-packages")


def environment_entries(python: str) -> list[str]:
    """What the environment of this interpreter has in its folder of packages.

    Raises:
        ImportError: something there belongs into torch as it is imported.
    """
    folder = site_packages(python)
    entries = os.listdir(folder)
    for entry in entries:
        try:
            with open(os.path.join(folder, entry, "entry_points.txt"), "rb") as file:
                if b"[torch.backends]" in file.read():
                    raise ImportError(f"the environment has {entry}, which torch loads as it is imported")
        except OSError:
            continue
    return entries


def modules_to_unload(entries: Iterable[str], loaded: Iterable[Loaded]) -> list[str]:
    """The imported modules that an environment has itself, so that its own are to be found instead. Pure.

    Args:
        entries: what its folder of packages holds.

    Raises:
        ImportError: it has one of its own that is compiled, which no process can have twice, and of another version.
    """
    present = set(entries)
    own = {entry.partition(".")[0] for entry in present}
    unloaded: list[str] = []
    names: set[str] = set()
    for name, is_compiled, version in loaded:
        names.add(name)
        if name not in own:
            continue
        if not is_compiled:
            unloaded.append(name)
        elif f"{name}-{version}.dist-info" not in present:
            raise ImportError(f"the environment has a {name} of its own, and torch was imported with {version}")
    for name in _LOOKED_FOR:
        if name in own and name not in names:
            raise ImportError(f"the environment has a {name}, and torch was imported without one")
    return unloaded


def become(start: Start, unloaded: list[str]) -> Callable[..., None]:
    """Makes this process that worker, once the server knows its number; returns the worker's main.

    Args:
        unloaded: as :func:`modules_to_unload` gives it.
    """
    variables = _take_descriptors(start)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    os.chdir(start.folder)
    sys.argv[:] = [boot.__file__]
    # multiprocessing runs it again in the children that it starts.
    sys.modules["__main__"].__file__ = boot.__file__
    # The worker's main adds its own, which comes last.
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, SharedTorchFinder)]
    for name in list(sys.modules):
        # sysconfig remembers where the interpreter was.
        if name.partition(".")[0] in (*unloaded, "sysconfig"):
            del sys.modules[name]
    _enter_environment(start.python)
    _tell_apart()
    return boot.import_main()


def _take_descriptors(start: Start) -> dict[str, str]:
    """Returns the worker's variables, which the server says once it knows its number: its hello has to come after."""
    lifeline = socket.socket(fileno=start.lifeline)
    with lifeline.makefile("rb") as said:
        size = said.read(_SIZE.size)
        body = said.read(*_SIZE.unpack(size)) if len(size) == _SIZE.size else b""
    if not body:
        os._exit(1)
    targets = {1: start.output, 2: start.output, STACKS_DESCRIPTOR: start.stacks}
    targets[LIFELINE_DESCRIPTOR] = lifeline.detach()
    for target, descriptor in targets.items():
        os.dup2(descriptor, target)
    for descriptor in {start.output, start.lifeline, start.stacks} - set(targets):
        os.close(descriptor)
    variables: dict[str, str] = json.loads(body)
    return variables


def _enter_environment(python: str) -> None:
    """What an interpreter does as it starts in a virtual environment."""
    sys.executable = python
    sys.prefix = sys.exec_prefix = os.path.dirname(os.path.dirname(python))
    # This package's root, which the worker's boot puts where it belongs.
    del sys.path[0]
    site.main()
    sys.path.insert(0, os.path.dirname(boot.__file__))


def _tell_apart() -> None:
    """What one child would have in common with the others and is to keep to itself."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Python's own generator sees to that itself.
        numpy_random.seed()


def leave() -> NoReturn:
    """Ends this process, whose worker is done: with what a pack may wait for at exit, and without what nobody sees.

    Taking the interpreter apart would write to the pages of all modules that its parent has imported, and so copy them,
    which takes longer than anything else that a worker does at its end. multiprocessing's children leave so, too.
    """
    shut_down: Any = getattr(threading, "_shutdown", None)
    run_exit_handlers: Any = getattr(atexit, "_run_exitfuncs", None)
    if shut_down is None or run_exit_handlers is None:
        sys.exit()
    shut_down()
    run_exit_handlers()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # The pack has closed it, or put something else there.
    # What C code has printed.
    ctypes.CDLL(None).fflush(None)
    os._exit(0)
