"""Workers that are forked from a process which has imported the host's torch: a module of a few lines that says who
imported it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, WorkerDied, connect
from processes import is_running, until

_TORCH = """import os
import multiprocessing
import random
import iniconfig
imported_by = os.getpid()
omp_threads = os.environ.get("OMP_NUM_THREADS")
"""
_INICONFIG = """__version__ = "2.0.0"
whose = "host's"
"""
_PACK = """import ctypes, os, random, signal, sys

class Evaluate:
    RETURN_TYPES = ("*",)
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls): return {"required": {}}
    def run(self, code): return (eval(code, globals()),)

NODE_CLASS_MAPPINGS = {"Evaluate": Evaluate}
"""


def write_distribution(folder: Path, name: str, version: str, source: str, requires: str = "") -> None:
    """A module that is installed, as far as anybody looks."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n")


@pytest.fixture(scope="module")
def host_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's environment, with what passes for torch and something that it requires."""
    folder = tmp_path_factory.mktemp("host")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    write_distribution(packages, "torch", "2.13.0", _TORCH, "Requires-Dist: iniconfig\n")
    write_distribution(packages, "iniconfig", "2.0.0", _INICONFIG)
    return folder


@pytest.fixture
def host(host_environment: Path) -> Iterator[Airlock]:
    """Runs on that environment, as far as its server knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(host_environment / "bin" / "python"))
        connected = connect()
    with connected:
        yield connected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def open_pack(host: Airlock, folder: Path, name: str, manifest: str = "", dependencies: str = "") -> Pack:
    """A pack that shares torch, and evaluates what it is given."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(_PACK)
    (folder / name / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = [{dependencies}]\n'
        f"[tool.comfy.isolation]\ncan_isolate = true\nshare_torch = true\n{manifest}"
    )
    return host.open(folder / name)


def evaluate(pack: Pack, code: str) -> Any:
    return pack.call("Evaluate", code=code)[0]


def next_worker(pack: Pack) -> int | None:
    """The number of the worker that answers; None where it has just died."""
    try:
        return evaluate(pack, "os.getpid()")
    except WorkerDied:
        return None


IMPORTED_BY = "__import__('torch').imported_by"


def test_torch_is_imported_once_for_all_workers(host: Airlock, folder: Path) -> None:
    one, other = open_pack(host, folder, "one"), open_pack(host, folder, "other")
    importers = {evaluate(pack, IMPORTED_BY) for pack in (one, other)}
    assert importers == {evaluate(pack, "os.getppid()") for pack in (one, other)}
    assert len(importers) == 1
    pids = {evaluate(pack, "os.getpid()") for pack in (one, other)}
    assert len(pids) == 2
    assert not pids & importers


def test_forked_worker_is_what_its_environments_interpreter_would_have_started_as(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack")
    code = """{
        "cwd": os.getcwd(), "argv": [os.path.basename(each) for each in sys.argv], "stdin": os.read(0, 1),
        "session": os.getsid(0) == os.getpid(), "token": "AIRLOCK_TOKEN" in os.environ, "home": os.environ.get("HOME"),
        "exit": "exit" in __builtins__, "loaded": "torch" in sys.modules, "site": sys.flags.no_site,
        "main": os.path.basename(sys.modules["__main__"].__file__),
        "descriptors": sorted(int(each) for each in os.listdir("/proc/self/fd"))[:5],
    }"""
    assert evaluate(pack, code) == {
        "cwd": str(folder / "pack"),
        "argv": ["boot.py"],
        "stdin": b"",
        "session": True,
        "token": False,
        "home": os.environ.get("HOME"),
        "exit": True,
        "loaded": True,
        "site": 0,
        "main": "boot.py",
        "descriptors": [0, 1, 2, 3, 4],
    }
    # Asked of the interpreter itself, which nobody forked.
    python = evaluate(pack, "sys.executable")
    shown: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
    asked = "[sys.prefix, sys.exec_prefix, sys.base_prefix, __import__('sysconfig').get_path('purelib')]"
    started = subprocess.run([python, "-Ec", f"import sys; print({asked})"], **shown)
    assert str(evaluate(pack, asked)) == started.stdout.strip()
    paths = subprocess.run([python, "-Ec", "import sys; print(sys.path[1:])"], **shown)
    assert str(evaluate(pack, "sys.path[:-1]")) == paths.stdout.strip()


def test_children_have_secrets_of_their_own(host: Airlock, folder: Path) -> None:
    packs = [open_pack(host, folder, name) for name in ("one", "other")]
    for drawn in ("random.random()", "bytes(__import__('multiprocessing').current_process().authkey)"):
        assert evaluate(packs[0], drawn) != evaluate(packs[1], drawn)


def test_processes_that_a_forked_worker_starts_find_its_environment(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack", '[tool.comfy.isolation.env]\nTZ = "Asia/Tokyo"\n')
    spawned = "__import__('multiprocessing').get_context('spawn').Pool(1).apply(eval, ('__import__(\"sys\").prefix',))"
    assert evaluate(pack, spawned) == evaluate(pack, "sys.prefix")
    assert evaluate(pack, "__import__('time').timezone") == -9 * 3600


def test_a_worker_with_a_limit_of_cpus_counts_them_itself(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack", "[tool.comfy.isolation.limits]\ncpus = 1\n")
    assert evaluate(pack, IMPORTED_BY) == evaluate(pack, "os.getpid()")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("ctypes.string_at(0)", "segmentation fault"),
    ],
)
def test_how_a_forked_worker_ended_is_told_and_the_next_is_forked(
    host: Airlock, folder: Path, act: str, said: str
) -> None:
    pack = open_pack(host, folder, "pack")
    importer, pid = evaluate(pack, IMPORTED_BY), evaluate(pack, "os.getpid()")
    with pytest.raises(WorkerDied, match=said) as raised:
        evaluate(pack, act)
    if "string_at" in act:
        assert "string_at" in str(raised.value.stack)
    assert (evaluate(pack, IMPORTED_BY), evaluate(pack, "os.getpid()") != pid) == (importer, True)
    # Its number was free once all of it was taken in.
    until(lambda: not is_running(pid))


def test_what_a_forked_worker_prints_is_in_its_log(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack")
    evaluate(pack, "print('said by the pack')")
    evaluate(pack, "os.system('echo said by what it started')")
    ((worker,),) = [each["workers"] for each in host.status()["packs"]]
    log = Path(worker["log"])
    until(lambda: "said by the pack" in log.read_text() and "said by what it started" in log.read_text())


def test_what_a_pack_leaves_for_its_end_is_done_as_a_forked_worker_is_closed(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack")
    note = folder / "note"
    evaluate(
        pack,
        "(ctypes.CDLL(None).printf(b'said in C'), sys.stdout.write('said last'))"
        " and __import__('threading').Thread(target=lambda: (__import__('time').sleep(0.3),"
        f" open({str(note)!r}, 'a').write('thread '))).start()",
    )
    evaluate(pack, f"__import__('atexit').register(lambda: open({str(note)!r}, 'a').write('handler')) is None")
    ((worker,),) = [each["workers"] for each in host.status()["packs"]]
    pack.close()
    until(lambda: not is_running(worker["pid"]))
    assert note.read_text() == "thread handler"
    log = Path(worker["log"]).read_text()
    assert "said in C" in log
    assert "said last" in log


def test_workers_end_with_the_process_that_forked_them_and_the_next_has_another(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack")
    pid, importer = evaluate(pack, "os.getpid()"), evaluate(pack, IMPORTED_BY)
    os.kill(importer, signal.SIGKILL)
    until(lambda: not is_running(pid))
    until(lambda: next_worker(pack) != pid)
    assert evaluate(pack, IMPORTED_BY) not in (importer, pid)


def test_variables_that_torch_does_not_look_at_are_the_packs_alone(host: Airlock, folder: Path) -> None:
    one = open_pack(host, folder, "one", '[tool.comfy.isolation.env]\nSAID = "by the pack"\n')
    other = open_pack(host, folder, "other")
    assert evaluate(one, IMPORTED_BY) == evaluate(other, IMPORTED_BY)
    assert evaluate(one, "os.environ['SAID']") == "by the pack"
    assert evaluate(other, "os.environ.get('SAID')") is None
    assert "SAID" not in evaluate(other, "open('/proc/self/environ').read()")


def test_torch_is_imported_with_the_variables_that_it_looks_at(host: Airlock, folder: Path) -> None:
    one = open_pack(host, folder, "one", '[tool.comfy.isolation.env]\nOMP_NUM_THREADS = "3"\n')
    other = open_pack(host, folder, "other")
    assert evaluate(one, IMPORTED_BY) != evaluate(other, IMPORTED_BY)
    assert evaluate(one, "__import__('torch').omp_threads") == "3"


def test_a_pack_has_its_own_of_what_torch_has_imported(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack", dependencies='"iniconfig==2.0.0"')
    assert evaluate(pack, IMPORTED_BY) == evaluate(pack, "os.getppid()")
    assert evaluate(pack, "__import__('torch').iniconfig.whose") == "host's"
    assert evaluate(pack, "hasattr(__import__('iniconfig'), 'whose')") is False


def test_a_forked_worker_is_ended_with_what_it_started(host: Airlock, folder: Path) -> None:
    pack = open_pack(host, folder, "pack")
    started = evaluate(pack, "__import__('subprocess').Popen(['sleep', '60']).pid")
    assert is_running(started)
    pack.close()
    until(lambda: not is_running(started))
