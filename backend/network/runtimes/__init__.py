"""The runtimes of the network: OpenVINO on CPUs (the default), timm on torch (the reference, and CUDA)."""

import ctypes
import importlib.util
import sys
from collections.abc import Sequence

from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import ConfigError
from backend.features import Runtime
from backend.network.weights import Weights

_INSTALL_TORCH = "pip install -r backend/requirements-torch.txt"


def open_runtime(
    settings: Settings, weights: Weights, threads: int = 0, blocks: Sequence[int] | None = None
) -> tuple[Runtime, str | None]:
    """Choose and load the runtime.

    CUDA when it may be used and torch sees a GPU; else OpenVINO for the default model; else torch on the CPU.

    Args:
        settings: the configuration.
        weights: of ``settings.model_name``.
        threads: how many threads a forward pass on the CPU uses; 0 leaves it to the runtime.
        blocks: blocks whose tokens it gives, side by side; None gives those of ``settings.block``.

    Returns:
        The runtime, and the reason if it does not run on ``DEVICE``, or if ``PRECISION`` gains nothing on this CPU.

    Raises:
        ConfigError: the runtime needs torch and it is not installed, the model cannot be built or has no such
            ``BLOCK``, or the device cannot compute in ``PRECISION``.
    """
    obstacle = _cuda_obstacle(settings)
    if settings.precision == "float16" and obstacle is not None:
        raise ConfigError(f"PRECISION=float16 needs CUDA, but {obstacle}; use float32 or bfloat16")
    advice = None
    if settings.runtime == "torch" or settings.model_name != DEFAULT_MODEL or obstacle is None:
        if settings.precision == "int8":
            raise ConfigError(_why_not_int8(settings))
        if not _torch_is_installed():
            raise ConfigError(f"RUNTIME=torch and other MODEL_NAMEs need torch and timm: {_INSTALL_TORCH}")
        from backend.network.runtimes.torch import TorchRuntime

        device = "cpu" if obstacle else "cuda"
        runtime: Runtime = TorchRuntime(
            settings.model_name,
            weights.path,
            settings.input_size,
            device,
            settings.precision,
            threads,
            settings.block,
            blocks,
        )
    else:
        from backend.network.runtimes.openvino import OpenVinoRuntime

        runtime = on_cpu = OpenVinoRuntime(
            weights.path, settings.input_size, settings.precision, threads, settings.block, blocks
        )
        advice = on_cpu.advice
    if settings.device == "cuda" and obstacle is not None:
        in_vain = f"DEVICE=cuda, but {obstacle}; running on the CPU"
        return runtime, in_vain if advice is None else f"{in_vain}. {advice}"
    return runtime, advice


def _why_not_int8(settings: Settings) -> str:
    if settings.model_name != DEFAULT_MODEL:
        return f"PRECISION=int8 is for MODEL_NAME={DEFAULT_MODEL}, not for {settings.model_name}: use float32"
    if settings.runtime == "torch":
        return "PRECISION=int8 is for OpenVINO, and RUNTIME=torch: use RUNTIME=openvino or PRECISION=float32"
    return "PRECISION=int8 is for CPUs, and the network would run on CUDA: set DEVICE=cpu or PRECISION=float16"


def _cuda_obstacle(settings: Settings) -> str | None:
    """Why the network does not run on CUDA; None if it does. Imports torch only if there is a GPU driver."""
    if settings.device == "cpu":
        return "DEVICE=cpu"
    if settings.runtime == "openvino":
        return "RUNTIME=openvino runs on CPUs"
    if not _nvidia_driver_sees_a_gpu():
        return "no CUDA device was found"
    if not _torch_is_installed():
        return f"torch and timm are not installed ({_INSTALL_TORCH})"
    import torch

    return None if torch.cuda.is_available() else "torch finds no usable CUDA device"


def _torch_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "timm"))


def _nvidia_driver_sees_a_gpu() -> bool:
    # Asking the driver takes a millisecond; asking torch means importing it, some seconds and hundreds of megabytes.
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
