#!/bin/sh
# A launcher of ComfyUI's, with Airlock as what isolates its packs: the one change is `airlock launch --`.
# AIRLOCK names the command where it is not on PATH; in a clone, bin/airlock.mjs.
exec "${AIRLOCK:-airlock}" launch -- "${PYTHON:-python}" "${COMFYUI:-.}/main.py" --use-process-isolation "$@"
