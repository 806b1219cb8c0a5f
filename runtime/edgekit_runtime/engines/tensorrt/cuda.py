"""The little of CUDA that inference needs: a GPU, its memory, a stream.

By ctypes on the driver's own library, which is there wherever a GPU works, under one name whatever the version of CUDA.
Contexts are the GPU's primary one, which TensorRT uses as well.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy.typing as npt

from edgekit_runtime.errors import EngineError

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NO_DEVICE = 100
_HINT = "An NVIDIA GPU with its driver is needed; `nvidia-smi` shows them (not on Jetson)."

_Pointer, _Integer, _Size, _Address = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (ctypes.POINTER(_Integer),),
    "cuDeviceGet": (ctypes.POINTER(_Integer), _Integer),
    "cuDeviceGetName": (ctypes.c_char_p, _Integer, _Integer),
    "cuDeviceGetAttribute": (ctypes.POINTER(_Integer), _Integer, _Integer),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_Pointer), _Integer),
    "cuDevicePrimaryCtxRelease_v2": (_Integer,),
    "cuCtxSetCurrent": (_Pointer,),
    "cuStreamCreate": (ctypes.POINTER(_Pointer), ctypes.c_uint),
    "cuStreamSynchronize": (_Pointer,),
    "cuStreamDestroy_v2": (_Pointer,),
    "cuMemAlloc_v2": (ctypes.POINTER(_Address), _Size),
    "cuMemFree_v2": (_Address,),
    "cuMemcpyHtoDAsync_v2": (_Address, _Pointer, _Size, _Pointer),
    "cuMemcpyDtoHAsync_v2": (_Pointer, _Address, _Size, _Pointer),
    "cuGetErrorString": (_Integer, ctypes.POINTER(ctypes.c_char_p)),
}


@dataclass(frozen=True)
class Gpu:
    """A GPU as engines are built for it: what it is called, and its compute capability such as (8, 7)."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.version}"

    @property
    def version(self) -> str:
        """The compute capability as it is written: `8.7`."""
        return "{}.{}".format(*self.capability)


def find_gpu() -> Gpu:
    """The first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses). Raises EngineError where there is none."""
    driver = _driver(DRIVER)
    device = _first_device(driver)
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    major, minor = (_integer(driver, "cuDeviceGetAttribute", attribute, device) for attribute in _CAPABILITY)
    return Gpu(name.value.decode(errors="replace"), (major, minor))


class Device:
    """The first GPU, opened: memory and a stream. Close it; use it from one thread at a time, whichever."""

    def __init__(self) -> None:
        self._driver = _driver(DRIVER)
        self._number = _first_device(self._driver)
        self._buffers: list[int] = []
        self._stream = _Pointer()
        self._context = _Pointer()
        _call(self._driver, "cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._number)
        try:
            self.activate()
            _call(self._driver, "cuStreamCreate", ctypes.byref(self._stream), 0)
        except EngineError:
            _call(self._driver, "cuDevicePrimaryCtxRelease_v2", self._number)
            raise

    @property
    def stream(self) -> int:
        """Handle of the stream that copies run in."""
        return self._stream.value or 0

    def activate(self) -> None:
        """Makes the GPU that of the calling thread; engines are opened in one and used in another."""
        _call(self._driver, "cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Address of so many bytes on the GPU; they are freed with the device."""
        address = _Address()
        _call(self._driver, "cuMemAlloc_v2", ctypes.byref(address), size)
        self._buffers.append(address.value)
        return address.value

    def upload(self, array: npt.NDArray[Any], address: int) -> None:
        """Copies a C-contiguous array to the GPU, in the stream; the array must live until `synchronise`."""
        _call(self._driver, "cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self._stream)

    def download(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copies from the GPU into a C-contiguous array, in the stream; it is there after `synchronise`."""
        _call(self._driver, "cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self._stream)

    def synchronise(self) -> None:
        """Returns when everything in the stream is done. Raises EngineError for what went wrong in it."""
        _call(self._driver, "cuStreamSynchronize", self._stream)

    def close(self) -> None:
        if self._context.value is None:
            return
        self.activate()
        for address in self._buffers:
            _call(self._driver, "cuMemFree_v2", address)
        _call(self._driver, "cuStreamDestroy_v2", self._stream)
        _call(self._driver, "cuDevicePrimaryCtxRelease_v2", self._number)
        self._context, self._buffers = _Pointer(), []


@cache
def _driver(name: str) -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(name)
        for function, arguments in _SIGNATURES.items():
            getattr(driver, function).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise EngineError(f"there is no NVIDIA driver here ({name})", hint=_HINT) from error
    _call(driver, "cuInit", 0)
    return driver


def _first_device(driver: ctypes.CDLL) -> int:
    if _integer(driver, "cuDeviceGetCount") < 1:
        raise EngineError("there is no NVIDIA GPU here", hint=_HINT)
    return _integer(driver, "cuDeviceGet", 0)


def _integer(driver: ctypes.CDLL, function: str, *arguments: int) -> int:
    """What a function writes to the integer that is its first argument."""
    value = _Integer()
    _call(driver, function, ctypes.byref(value), *arguments)
    return value.value


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    """Raises EngineError with CUDA's own words where a call fails."""
    status = getattr(driver, function)(*arguments)
    if status == _NO_DEVICE:
        raise EngineError("there is no NVIDIA GPU here", hint=_HINT)
    if status:
        words = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(words))
        raise EngineError(f"CUDA: {(words.value or b'error').decode()} ({status}, {function})", hint=_HINT)
