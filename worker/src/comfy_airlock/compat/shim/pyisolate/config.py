"""The types of configs."""

from comfy_airlock.compat.config import CUDAWheelConfig as CUDAWheelConfig
from comfy_airlock.compat.config import ExtensionConfig as ExtensionConfig
from comfy_airlock.compat.config import ExtensionManagerConfig as ExtensionManagerConfig
from comfy_airlock.compat.config import SandboxConfig as SandboxConfig
from comfy_airlock.compat.config import SandboxMode as SandboxMode
