"""Extensions of a host that speaks pyisolate, in workers of a server's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyisolate
import pytest

from comfy_airlock.compat.session import close_session
from command import ROOT, own_command
from compat_extension import Clock, Colour, ProbeExtension, Shy
from compat_types import Mode, Pair, Point
from processes import is_running, until


@pytest.fixture(scope="module", autouse=True)
def _command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_command(tmp_path_factory.mktemp("command")):
        yield


@pytest.fixture
def manager() -> Iterator[Any]:
    with pyisolate.singleton_scope():
        made: Any = pyisolate.ExtensionManager(ProbeExtension, {"venv_root_path": "/nowhere"})
        yield made
        made.stop_all_extensions()
        close_session()


def load(manager: Any, name: str = "plain", **more: Any) -> Any:
    folder = str(ROOT / "tests" / "packs" / "plain-pack")
    config = {"name": name, "module_path": folder, "sandbox_mode": "disabled", "apis": [Clock], **more}
    return manager.load_extension(config)


def test_values_keep_their_types(manager: Any) -> None:
    values = [(1, (2,)), {1: "a", "b": [None]}, {3}, b"x", 2**70, Colour.RED, Path("/a"), 1.5]

    async def work() -> None:
        extension = load(manager)
        for value in values:
            back = await extension.echo(value)
            assert back == value and type(back) is type(value)

    asyncio.run(work())


def test_values_of_the_host_s_classes_are_of_those_in_a_worker_that_has_not_imported_them(manager: Any) -> None:
    async def work() -> None:
        extension = load(manager)
        point = Point(1, Mode.FAST)
        assert [await extension.kind(each) for each in (Mode.FAST, point, Pair(1, point))] == ["Mode", "Point", "Pair"]
        assert await extension.echo(Pair(1, point)) == Pair(1, point)

    asyncio.run(work())


def test_a_call_waits_until_the_pack_is_loaded(manager: Any) -> None:
    assert asyncio.run(load(manager).loaded()) is True


def test_an_exception_keeps_type_arguments_and_traceback(manager: Any) -> None:
    with pytest.raises(LookupError) as caught:
        asyncio.run(load(manager).fail())
    assert caught.value.args == ("not here", 7)
    assert "in fail" in str(caught.value.__cause__)


def test_what_has_no_form_stays_where_it_is_and_can_be_used_and_passed_back(manager: Any) -> None:
    async def work() -> None:
        extension = load(manager)
        shy = Shy(4)
        assert await extension.echo(shy) is shy
        theirs = await extension.make(5)
        # A reference blocks for what it is asked: not on the loop that may have to serve the worker meanwhile.
        assert await asyncio.to_thread(lambda: (theirs.value, theirs.double())) == (5, 10)
        assert await extension.use(theirs) == [5, 10]

    asyncio.run(work())


def test_subclasses_of_plain_values_cross_as_those(manager: Any) -> None:
    class AnyType(str):
        __slots__ = ()

    class Settings(dict[str, Any]):
        pass

    async def work() -> None:
        extension = load(manager)
        assert [await extension.kind(AnyType("*")), await extension.kind(Settings(a=1))] == ["str", "dict"]

    asyncio.run(work())


def test_a_function_is_called_where_it_lives_and_comes_home_as_itself(manager: Any) -> None:
    def twice(value: int) -> int:
        return value * 2

    async def work() -> None:
        extension = load(manager)
        assert await extension.call(twice, 3) == 6
        assert await extension.echo(twice) is twice

    asyncio.run(work())


def test_a_function_is_called_by_the_id_that_it_was_registered_by(manager: Any) -> None:
    async def later(value: int, by: int) -> int:
        await asyncio.sleep(0)
        return value + by

    async def work() -> None:
        extension = load(manager)
        await asyncio.to_thread(extension.ensure_process_started)
        plain, coroutine = extension.rpc.register_callback(str.upper), extension.rpc.register_callback(later)
        assert await extension.call_by_id(plain, "a") == "A"
        assert await extension.call_by_id(coroutine, 1, 2) == 3
        with pytest.raises(ValueError, match="no callback is registered as 'none'"):
            await extension.call_by_id("none")

    asyncio.run(work())


def test_event_loops_may_come_and_go(manager: Any) -> None:
    extension = load(manager)
    pids = {asyncio.run(extension.process()) for _ in range(3)}
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(extension.process())))
    thread.start()
    thread.join()
    assert pids == set(results)


def test_a_service_is_called_on_the_loop_that_the_host_named_and_on_one_of_its_own_without_that(manager: Any) -> None:
    extension = load(manager)
    asyncio.run(extension.loaded())
    # No loop of the host's runs: this one is gone.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="host-loop")
    thread.start()
    try:
        extension.rpc.update_event_loop(loop)
        assert asyncio.run(extension.clock_from_thread()) == "host-loop"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert asyncio.run(extension.clock_from_thread()) != "host-loop"


def test_events_are_handled_before_the_teller_goes_on_and_unknown_ones_raise(manager: Any) -> None:
    told: list[Any] = []

    async def work() -> None:
        extension = load(manager)
        extension.register_event_handler("known", told.append)
        await extension.emit("known", {"a": [1]})
        assert told == [{"a": [1]}]
        with pytest.raises(ValueError, match="unknown"):
            await extension.emit("unknown", {})
        with pytest.raises(TypeError):
            await extension.emit("known", {"a": {1}})

    asyncio.run(work())


def test_stop_ends_the_process_before_it_returns_and_the_next_use_starts_another(manager: Any) -> None:
    extension = load(manager)
    assert not hasattr(extension, "rpc")
    first = asyncio.run(extension.process())
    assert hasattr(extension, "rpc")
    assert extension.stop() is None
    assert not is_running(first) and not hasattr(extension, "rpc")
    assert asyncio.run(extension.process()) != first


def test_an_extension_that_dies_says_so_as_a_connection_error_and_is_started_again(manager: Any) -> None:
    async def work() -> None:
        extension = load(manager)
        first = await extension.process()
        with pytest.raises(ConnectionError, match="plain") as caught:
            await extension.die()
        assert "3" in str(getattr(caught.value, "exit", ""))
        assert await extension.process() != first

    asyncio.run(work())


def test_an_extension_may_end_itself(manager: Any) -> None:
    extension = load(manager)
    pid = asyncio.run(extension.process())
    # Its end may overtake its answer.
    with contextlib.suppress(ConnectionError):
        asyncio.run(extension.end())
    until(lambda: not is_running(pid))


def test_a_pack_s_pin_comes_before_the_host_s_packages_and_those_are_found_where_it_has_none(manager: Any) -> None:
    async def work() -> None:
        pinned, bare = load(manager, "pinned", dependencies=["six==1.16.0"]), load(manager, "bare")
        found = await pinned.finds("six")
        assert "environments" in found
        # The tests' own environment has it, the pack doesn't.
        assert (await bare.finds("pytest")).startswith(os.path.dirname(os.path.dirname(pytest.__file__)))

    asyncio.run(work())


def test_two_extensions_of_one_folder_have_a_process_each(manager: Any) -> None:
    async def work() -> None:
        one, two = load(manager, "one"), load(manager, "two", env={"WHICH": "two"})
        assert await one.process() != await two.process()
        assert [await one.variable("WHICH"), await two.variable("WHICH")] == [None, "two"]

    asyncio.run(work())


def test_nothing_of_the_host_s_is_in_a_sealed_worker(manager: Any) -> None:
    sealed: Any = pyisolate.ExtensionManager(pyisolate.SealedNodeExtension, {"venv_root_path": "/nowhere"})
    folder = str(ROOT / "examples" / "packs" / "inkwork")
    extension = sealed.load_extension(
        {"name": "sealed", "module_path": folder, "execution_model": "sealed_worker", "dependencies": []}
    )
    try:
        # The pack's own import, which finds none of what its host has.
        with pytest.raises(ModuleNotFoundError):
            asyncio.run(extension.list_nodes())
    finally:
        sealed.stop_all_extensions()


SEALED_PACK = """
class Thing:
    def __init__(self, value):
        self.value = value

class Make:
    RETURN_TYPES, FUNCTION, CATEGORY = ("THING", "INT"), "make", "sealed"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 1})}}
    def make(self, value):
        return Thing(value), value

class Read:
    RETURN_TYPES, FUNCTION, CATEGORY = ("INT",), "read", "sealed"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"thing": ("THING",)}}
    async def read(self, thing):
        return (thing.value,)

NODE_CLASS_MAPPINGS = {"Make": Make, "Read": Read}
NODE_DISPLAY_NAME_MAPPINGS = {"Make": "Make a thing"}
"""


def test_nodes_of_a_sealed_pack_run_and_their_objects_stay_there(manager: Any, tmp_path: Path) -> None:
    del manager
    folder = tmp_path / "sealed_pack"
    folder.mkdir()
    (folder / "__init__.py").write_text(SEALED_PACK)
    sealed: Any = pyisolate.ExtensionManager(pyisolate.SealedNodeExtension, {"venv_root_path": "/nowhere"})
    extension = sealed.load_extension(
        {"name": "sealed", "module_path": str(folder), "execution_model": "sealed_worker", "dependencies": []}
    )

    async def work() -> None:
        assert await extension.list_nodes() == {"Make": "Make a thing", "Read": "Read"}
        details = await extension.get_node_details("Make")
        assert details["input_types"] == {"required": {"value": ("INT", {"default": 1})}}
        assert details["return_types"] == ("THING", "INT")
        handle, value = await extension.execute_node("Make", value=5)
        assert (handle.type_name, value) == ("Thing", 5)
        assert await extension.execute_node("Read", thing=handle) == (5,)
        assert await extension.flush_transport_state() == 1
        with pytest.raises(KeyError, match="not here any more"):
            await extension.execute_node("Read", thing=handle)

    try:
        asyncio.run(work())
    finally:
        sealed.stop_all_extensions()


def test_a_name_is_loaded_once(manager: Any) -> None:
    load(manager)
    with pytest.raises(ValueError, match="plain"):
        load(manager)
