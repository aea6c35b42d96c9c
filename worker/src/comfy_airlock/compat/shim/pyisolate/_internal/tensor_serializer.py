"""Memory of tensors."""

from comfy_airlock.compat.tensors import flush_tensor_keeper as flush_tensor_keeper
from comfy_airlock.compat.tensors import purge_orphan_sender_shm_files as purge_orphan_sender_shm_files
