"""Services of which there is one: the object itself in the host, and in a worker what calls that.

The classes' own table of instances is the process's: a class is asked for its instance wherever its name is known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

T = TypeVar("T")
_IS_LOCAL = "_is_local_execution"


class Rpc(Protocol):
    """What reaches the other side: :class:`comfy_airlock.compat.rpc.AsyncRPC`."""

    def create_caller(self, abc: type[Any], object_id: str, /) -> Any: ...

    def register_callee(self, object_instance: object, object_id: str, /) -> None: ...


def local_execution(func: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method of a service to run in the process that calls it."""
    setattr(func, _IS_LOCAL, True)
    return func


class LocalMethodRegistry:
    """Instances on which a worker runs the methods of services that are marked as local."""

    _instance: ClassVar[LocalMethodRegistry | None] = None

    def __init__(self) -> None:
        self._instances: dict[type, Any] = {}
        self._names: dict[type, frozenset[str]] = {}

    @classmethod
    def get_instance(cls) -> LocalMethodRegistry:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def register_class(self, cls: type[Any]) -> None:
        """Makes the instance on which local methods of a class run."""
        # Not by calling the class, which would make it the service itself.
        instance = object.__new__(cls)
        cls.__init__(instance)
        self._instances[cls] = instance
        self._names[cls] = frozenset(
            name
            for name in dir(cls)
            if not name.startswith("__") and getattr(getattr(cls, name, None), _IS_LOCAL, False)
        )

    def is_local_method(self, cls: type, method_name: str) -> bool:
        return method_name in self._names.get(cls, ())

    def get_local_method(self, cls: type, method_name: str) -> Callable[..., Any]:
        """
        Raises:
            ValueError: the class has none here.
        """
        if cls not in self._instances:
            raise ValueError(f"{cls.__qualname__} has no local methods in this process: it is not used remotely")
        method: Callable[..., Any] = getattr(self._instances[cls], method_name)
        return method


class SingletonMetaclass(type):
    """Makes a class give the same instance each time."""

    _instances: ClassVar[dict[type, Any]] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        instances: dict[Any, Any] = SingletonMetaclass._instances
        if cls not in instances:
            instances[cls] = super().__call__(*args, **kwargs)
        return instances[cls]

    def get_instance(cls, *args: Any, **kwargs: Any) -> Any:
        """The instance, made now if there is none."""
        return cls(*args, **kwargs)

    def inject_instance(cls, instance: Any) -> None:
        """Has the class give this instance.

        Raises:
            AssertionError: there is one already.
        """
        instances: dict[Any, Any] = SingletonMetaclass._instances
        if cls in instances:
            raise AssertionError(f"{cls.__name__} has an instance already: inject one before the first is asked for")
        instances[cls] = instance

    def use_remote(cls, rpc: Rpc) -> None:
        """Has the class, in this process, give what calls the instance on the other side."""
        if not issubclass(cls, ProxiedSingleton):
            raise AssertionError(f"{cls.__name__} is no ProxiedSingleton: it can't be used remotely")  # noqa: TRY004
        caller = rpc.create_caller(cls, cls.get_remote_id())
        LocalMethodRegistry.get_instance().register_class(cls)
        SingletonMetaclass.inject_instance(cls, caller)
        for name, hint in get_type_hints(cls).items():
            if isinstance(hint, type) and issubclass(hint, ProxiedSingleton) and not name.startswith("_"):
                setattr(caller, name, rpc.create_caller(hint, hint.get_remote_id()))


class ProxiedSingleton(metaclass=SingletonMetaclass):
    """A service: its coroutine methods can be called from other processes."""

    def __init__(self) -> None:
        object.__init__(self)

    @classmethod
    def get_remote_id(cls) -> str:
        """What it is called across processes."""
        return cls.__name__

    def _register(self, rpc: Rpc) -> None:
        """Lets the other side call it, and the services that its class has as attributes."""
        rpc.register_callee(self, self.get_remote_id())
        for name, each in vars(type(self)).items():
            if isinstance(each, ProxiedSingleton) and each is not self and not name.startswith("_"):
                each._register(rpc)


@contextmanager
def singleton_scope() -> Generator[None]:
    """Within it classes may have other instances; after it they have those that they had before."""
    before = dict(SingletonMetaclass._instances)  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        SingletonMetaclass._instances.clear()  # pyright: ignore[reportPrivateUsage]
        SingletonMetaclass._instances.update(before)  # pyright: ignore[reportPrivateUsage]


def is_remote_method(of: type, name: str) -> bool:
    """Whether a class has a public coroutine method of this name.

    Raises:
        AttributeError: it has no public method of this name.
        ValueError: it has one that is no coroutine function.
    """
    method = None if name.startswith("_") else getattr(of, name, None)
    if not callable(method):
        raise AttributeError(  # noqa: TRY004 - as getattr does.
            f"{of.__qualname__} has no method {name!r} that can be called from another process"
        )
    if LocalMethodRegistry.get_instance().is_local_method(of, name):
        return False
    if not inspect.iscoroutinefunction(method):
        raise ValueError(
            f"{of.__qualname__}.{name} is not a coroutine function: only those are called from another process"
        )
    return True
