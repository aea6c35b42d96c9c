"""How a node tells the host how far it is, on a thread that can't await: straight into the outbox."""

import asyncio

rpc = None
emit = None


def tell(value, total):
    loop = asyncio.new_event_loop()
    rpc.outbox.put(
        {
            "kind": "call",
            "object_id": "ProgressBar",
            "parent_call_id": None,
            "calling_loop": loop,
            "future": loop.create_future(),
            "method": "update",
            "args": (value, total),
            "kwargs": {},
        }
    )
