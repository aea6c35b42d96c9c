"""What packs may ask of the host."""

import asyncio
import os
import threading

from pyisolate import ProxiedSingleton, local_execution


class Folders(ProxiedSingleton):
    """Where files lie; some of it is known everywhere."""

    def __init__(self):
        super().__init__()
        self.asked = []

    async def folder_of(self, kind):
        self.asked.append(kind)
        return f"/models/{kind}"

    @local_execution
    def process(self):
        return os.getpid()

    async def process_of_service(self):
        return os.getpid()


class ProgressBar(ProxiedSingleton):
    """Told how far nodes are, on whichever loop the host runs by then."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.changed = threading.Condition()

    async def update(self, value, total):
        await asyncio.sleep(0)
        with self.changed:
            self.told.append([value, total])
            self.changed.notify_all()

    def wait_for(self, count, seconds=20):
        with self.changed:
            self.changed.wait_for(lambda: len(self.told) >= count, seconds)
            return list(self.told)


class Models(ProxiedSingleton):
    """The models themselves, by the names under which packs know them."""

    def __init__(self):
        super().__init__()
        self._models = {}
        self.threads = set()

    def keep(self, model):
        for name, kept in self._models.items():
            if kept is model:
                return name
        name = f"model-{len(self._models)}"
        self._models[name] = model
        return name

    def get(self, name):
        return self._models[name]

    async def apply(self, name, latent, strength):
        self.threads.add(threading.current_thread().name)
        return self._models[name].apply(latent, strength)

    async def describe(self, name):
        return self._models[name].title
