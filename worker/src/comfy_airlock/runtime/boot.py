"""The first lines that a worker runs: the server starts its interpreter with the path of this file.

Puts this package where the interpreter finds it, without letting it come before what the pack installed, and hands
over.
"""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def import_main():
    # Python puts the script's own folder first: modules of this package would shadow others of their name.
    sys.path[0] = _ROOT
    # Where Python may not write bytecode (containers like to say so), every worker would compile this package again:
    # a fifth of its start. This package's own is written nevertheless, beside it; the pack's is not.
    as_asked, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    from comfy_airlock.runtime import stacks

    # Before anything that native code of others could crash in.
    stacks.hold()
    from comfy_airlock.runtime.main import main

    sys.dont_write_bytecode = as_asked
    # From here on the pack's packages come first, also where one of them is another version of this package.
    sys.path.remove(_ROOT)
    sys.path.append(_ROOT)
    return main


if __name__ == "__main__":
    import_main()()
