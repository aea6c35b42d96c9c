"""The first lines that a worker runs: the server starts its interpreter with the path of this file.

Puts this package where the interpreter finds it, without letting it come before what the pack installed, and hands
over.
"""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _import_main():
    # Python puts the script's own folder first: modules of this package would shadow others of their name.
    sys.path[0] = _ROOT
    from comfy_airlock.runtime.main import main

    # From here on the pack's packages come first, also where one of them is another version of this package.
    sys.path.remove(_ROOT)
    sys.path.append(_ROOT)
    return main


if __name__ == "__main__":
    _import_main()()
