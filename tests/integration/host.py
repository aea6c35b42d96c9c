"""A Python host for fault tests: opens the probe pack, says its worker's pid, makes one call, says how it went."""

import json
import sys

from comfy_airlock import AirlockError, connect

folder, node, inputs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with connect() as airlock:
    pack = airlock.open(folder)
    print(json.dumps({"worker": pack.describe()["pid"], "socket": airlock.socket_path}), flush=True)
    try:
        print(json.dumps({"result": repr(pack.call(node, **inputs))}), flush=True)
    except AirlockError as error:
        print(json.dumps({"error": error.code, "message": error.message}), flush=True)
