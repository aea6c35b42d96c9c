"""A model, which stays in the host, and what packs have of it."""

import asyncio
import os
import threading

from shaped.services import Models


class Model:
    """Too large to be sent."""

    def __init__(self, title, weight):
        self.title = title
        self.weight = weight

    def apply(self, latent, strength):
        return latent * self.weight * strength


class ModelProxy:
    """Calls the model, from the thread of a node that knows nothing of coroutines."""

    def __init__(self, model_id):
        self.model_id = model_id

    def _call(self, method, *args):
        from pyisolate._internal.rpc_protocol import get_child_rpc_instance

        caller = get_child_rpc_instance().create_caller(Models, Models.get_remote_id())
        return run_in_own_loop(getattr(caller, method)(self.model_id, *args))

    def apply(self, latent, strength):
        return self._call("apply", latent, strength)

    @property
    def title(self):
        return self._call("describe")


def run_in_own_loop(coroutine):
    """The coroutine's result, on a loop of another thread's: this one's may be at work."""
    outcome = {}

    def run():
        outcome["value"] = asyncio.run(coroutine)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome["value"]


def is_child():
    return os.environ.get("PYISOLATE_CHILD") == "1"
