"""A plugin for pytest that runs tests which are coroutine functions, each on a loop of its own."""

import asyncio
import inspect

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "asyncio: a coroutine function")
    config.addinivalue_line("markers", "network: needs the network")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    names = inspect.signature(function).parameters
    asyncio.run(function(**{name: value for name, value in pyfuncitem.funcargs.items() if name in names}))
    return True
