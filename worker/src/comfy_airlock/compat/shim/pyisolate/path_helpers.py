"""Paths of host and workers."""

from comfy_airlock.compat.host_paths import build_child_sys_path as build_child_sys_path
from comfy_airlock.compat.host_paths import serialize_host_snapshot as serialize_host_snapshot
