"""PyTorch checkpoints read without PyTorch: the zip format, the one before it, and GPT-SoVITS's marked files.

A checkpoint is a pickle that refers to storages, flat arrays that lie beside it in the file: as entries of a
zip archive, or before PyTorch 1.6 behind a row of pickles. The file is mapped into memory: a tensor costs
nothing until it is read, so a large encoder is never held twice.

GPT-SoVITS replaces the first two bytes of its newer files ("PK" of the zip format) by a version marker.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from .pickles import KNOWN, Builder, DamagedPickle, Global, load_pickle

MARKERS = ("00", "01", "02", "03", "04", "05", "06")
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of the magic number 0x1950a86a20f9469cfc6c
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
_DTYPES = {
    **{name: name for name in _STORAGES.values()},
    **{
        "double": "float64",
        "float": "float32",
        "half": "float16",
        "long": "int64",
        "int": "int32",
        "short": "int16",
    },
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: its object, with a `StoredTensor` for every tensor, and its marker ("05") or ""."""

    root: Any
    marker: str


@dataclass
class _Storage:
    """A flat array of the file; `start` is its first byte, set when the file's lay-out is known."""

    key: str
    dtype: str
    numel: int
    start: int = -1
    crc: int = 0

    @property
    def nbytes(self) -> int:
        return self.numel * _itemsize(self.dtype)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that still lies in its file. `dtype` is NumPy's name of the type, or "bfloat16"."""

    file: _File
    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The values, a view of the file where it can be one; bfloat16 becomes float32.

        Raises:
            WeightsError: the bytes do not have the checksum that the file states.
        """
        flat = self.file.flat(self.storage, self.dtype)[self.offset :]
        itemsize = flat.itemsize
        view = np.lib.stride_tricks.as_strided(flat, self.shape, [s * itemsize for s in self.stride], writeable=False)
        if self.dtype == "bfloat16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view


class _File:
    """A checkpoint mapped into memory."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.storages: dict[str, _Storage] = {}
        self._checked: set[str] = set()

    def damaged(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path} is damaged or incomplete ({what}): download or copy it again")

    def flat(self, storage: _Storage, dtype: str) -> np.ndarray:
        """All elements of a storage as `dtype` (bfloat16 as uint16), its checksum verified once."""
        if storage.key not in self._checked:
            data = memoryview(self.map)[storage.start : storage.start + storage.nbytes]
            # A stated 0 means that the writer was told not to compute checksums.
            if storage.crc and zlib.crc32(data) != storage.crc:
                raise self.damaged(f"storage {storage.key} has a wrong checksum")
            self._checked.add(storage.key)
        kind = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
        return np.frombuffer(self.map, kind, storage.nbytes // kind.itemsize, storage.start)

    def builders(self) -> dict[str, Builder | None]:
        """The names of torch that a checkpoint may use, and what they build."""
        modules = ("torch", "torch.cuda", "torch.storage")
        return {
            **KNOWN,
            **{f"{module}.{name}": None for module in modules for name in _STORAGES},
            **{f"torch.{name}": None for name in (*_DTYPES, "strided", "contiguous_format")},
            "torch.Size": lambda arguments: tuple(*arguments),
            "torch.device": lambda arguments: ":".join(map(str, arguments)),
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_of_dtype,
            "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
            "torch._utils._rebuild_parameter_with_state": lambda arguments: arguments[0],
        }

    def storage(self, identity: tuple[Any, ...]) -> _Storage:
        """The storage of a persistent id ("storage", class, key, device, number of elements[, view])."""
        kind, storage_type, key, _, numel, *view = identity
        if kind != "storage" or not isinstance(storage_type, Global) or storage_type.name not in _STORAGES:
            raise TypeError("unknown kind of storage")
        if not _sizes((numel,)) or not isinstance(key, str | int) or any(part is not None for part in view):
            raise TypeError("malformed storage")
        storage = _Storage(str(key), _STORAGES[storage_type.name], numel)
        known = self.storages.setdefault(storage.key, storage)
        if known.nbytes != storage.nbytes:
            raise ValueError(f"storage {key} has two sizes")
        return known

    def _tensor(self, arguments: tuple[Any, ...]) -> StoredTensor:
        storage, offset, shape, stride = arguments[:4]
        return self._placed(storage, storage.dtype if isinstance(storage, _Storage) else "", offset, shape, stride)

    def _tensor_of_dtype(self, arguments: tuple[Any, ...]) -> StoredTensor:
        storage, offset, shape, stride, _, _, dtype = arguments[:7]
        if not isinstance(dtype, Global) or dtype.name not in _DTYPES:
            raise TypeError("unknown dtype")
        return self._placed(storage, _DTYPES[dtype.name], offset, shape, stride)

    def _placed(self, storage: Any, dtype: str, offset: Any, shape: Any, stride: Any) -> StoredTensor:
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise TypeError("malformed tensor")
        if not _sizes((offset, *shape, *stride)) or len(shape) != len(stride):
            raise TypeError("malformed tensor")
        end = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
        if math.prod(shape) and end * _itemsize(dtype) > storage.nbytes:
            raise ValueError("a tensor reaches beyond its storage")
        return StoredTensor(self, storage, dtype, offset, shape, stride)


def read_torch(path: Path) -> Checkpoint:
    """Open a PyTorch checkpoint of either format.

    Raises:
        WeightsError: there is no such file, it is not a checkpoint, it is damaged, or its pickle asks for
            anything beside tensors and plain data. Nothing that the file names is ever imported or called.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise WeightsError(f"{path} is not a file: give the checkpoint itself")
        with open(path, "rb") as stream:
            start = stream.read(len(_LEGACY_START))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    zipped = start[2:4] == b"\x03\x04" and size > 4
    if not zipped and start != _LEGACY_START:
        raise WeightsError(f"{path} is not a PyTorch checkpoint: its first bytes are {start[:4].hex(' ') or 'missing'}")
    marker = "" if start[:2] == b"PK" else start[:2].decode("latin-1")
    if zipped and marker and marker not in MARKERS:
        raise WeightsError(f"{path} carries the unknown version marker {marker!r}: it is newer than this package")
    file = _File(path)
    try:
        return Checkpoint(_read_zip(file) if zipped else _read_legacy(file), marker if zipped else "")
    except DamagedPickle as error:
        raise file.damaged(str(error)) from None


def _read_zip(file: _File) -> Any:
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise file.damaged(str(error)) from None
    roots = [name for name in entries if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        raise WeightsError(f"{file.path} is a zip archive but not a PyTorch checkpoint: it holds no data.pkl")
    folder = roots[0].partition("/")[0]
    order = entries.get(f"{folder}/byteorder")
    if order is not None and _content(file, order) != b"little":
        raise WeightsError(f"{file.path} was written on a big-endian machine, which is not supported")
    pickled = io.BytesIO(_content(file, entries[roots[0]]))
    root = load_pickle(pickled, str(file.path), file.builders(), file.storage)
    for key, storage in file.storages.items():
        entry = entries.get(f"{folder}/data/{key}")
        if entry is None or entry.file_size < storage.nbytes:
            raise file.damaged(f"storage {key} is missing or too short")
        storage.start = _content_start(file, entry)
        storage.crc = entry.CRC if entry.file_size == storage.nbytes else 0
    return root


def _content_start(file: _File, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its local header, whose "PK" the marker may have replaced."""
    header = file.map[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or header[2:4] != b"\x03\x04" or entry.compress_type != zipfile.ZIP_STORED:
        raise file.damaged(f"entry {entry.filename} is unreadable")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + name_length + extra_length
    if start + entry.file_size > len(file.map):
        raise file.damaged(f"entry {entry.filename} is cut off")
    return start


def _content(file: _File, entry: zipfile.ZipInfo) -> bytes:
    start = _content_start(file, entry)
    content = file.map[start : start + entry.file_size]
    if entry.CRC and zlib.crc32(content) != entry.CRC:
        raise file.damaged(f"entry {entry.filename} has a wrong checksum")
    return content


def _read_legacy(file: _File) -> Any:
    """Magic number, protocol, system, object, list of storage keys, then each storage behind its length."""
    stream = file.map  # never reads more than there is, whatever length a pickle states
    stream.seek(0)
    source, builders = str(file.path), file.builders()
    _, protocol, system = (load_pickle(stream, source, builders, file.storage) for _ in range(3))
    if protocol != 1001 or not isinstance(system, dict) or not system.get("little_endian", True):
        raise WeightsError(f"{file.path} is of an unknown PyTorch format (protocol {str(protocol)[:20]})")
    root = load_pickle(stream, source, builders, file.storage)
    keys = load_pickle(stream, source, builders, file.storage)
    position = stream.tell()
    if not isinstance(keys, list) or not {*file.storages} <= {*map(str, keys)}:
        raise file.damaged("its list of storages is malformed")
    for key in map(str, keys):
        storage = file.storages.get(key)
        length = file.map[position : position + 8]
        if storage is None or len(length) < 8 or struct.unpack("<q", length)[0] != storage.numel:
            raise file.damaged(f"storage {key} does not have the stated size")
        storage.start = position + 8
        position = storage.start + storage.nbytes
        if position > len(file.map):
            raise file.damaged(f"storage {key} is cut off")
    return root


def _sizes(numbers: tuple[Any, ...]) -> bool:
    """Whether all are plain integers that can be sizes in a file."""
    return all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
