"""As launch.sh, from Python: with the package installed beside ComfyUI, and `airlock` on PATH or in AIRLOCK_BIN.

python launch.py main.py --use-process-isolation --listen 0.0.0.0
"""

import os
import sys

if __name__ == "__main__":
    command = [sys.executable, "-m", "comfy_airlock", "launch", "--", sys.executable, *sys.argv[1:]]
    # This process becomes the launcher: signals and the exit code are its own.
    os.execv(sys.executable, command)
