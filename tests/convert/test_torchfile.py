"""Files written by PyTorch are read without it, value for value; damaged and foreign ones are refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import environment

import random_weights
from gpt_sovits_mlx.convert.torchfile import StoredTensor, read_torch
from gpt_sovits_mlx.errors import WeightsError

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
FORMATS = {"zip": True, "legacy": False}


def odd_tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    return {
        **{str(dtype): (torch.randn(7, 3) * 4).to(dtype) for dtype in DTYPES},
        "transposed": base.permute(2, 0, 1),
        "part of a storage": base[1:, 1:3, ::2],
        "expanded": torch.tensor([1.5]).expand(4, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "same storage": base,
    }


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS.keys())
def test_values_are_those_of_torch(tmp_path: Path, zipped: bool):
    tensors = odd_tensors()
    path = tmp_path / "file.pt"
    torch.save({"weight": tensors}, path, _use_new_zipfile_serialization=zipped)
    read: dict[str, StoredTensor] = read_torch(path).root["weight"]
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        value = read[name].read()
        expected = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        assert value.dtype == expected.numpy().dtype, name
        assert value.shape == tuple(tensor.shape), name
        np.testing.assert_array_equal(value, expected.numpy(), err_msg=name)


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS.keys())
def test_plain_objects_come_back(tmp_path: Path, zipped: bool):
    module = torch.nn.Linear(2, 3)
    path = tmp_path / "file.pt"
    config = {
        "n": 1 << 70,
        "x": -1.5,
        "flags": [True, None, (1, "中文")],
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "folder": tmp_path,
        "shape": torch.Size([1, 2]),
    }
    data = {"weight": module.state_dict(), "parameter": module.bias, "config": config, "type": torch.float16}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    root = read_torch(path).root
    assert root["config"] == {**config, "folder": "/" + str(tmp_path), "shape": (1, 2)}
    np.testing.assert_array_equal(root["parameter"].read(), module.bias.detach().numpy())
    np.testing.assert_array_equal(root["weight"]["weight"].read(), module.weight.detach().numpy())


def test_marked_file_with_hparams(tmp_path: Path):
    path = tmp_path / "voice.pth"
    config = {"model": {"version": "v2Pro", "gin_channels": 1024}, "data": {"sampling_rate": 32000}}
    random_weights.save_sovits(path, {"a": torch.ones(3)}, config, "info", marker="05")
    assert path.read_bytes()[:2] == b"05"
    checkpoint = read_torch(path)
    assert checkpoint.marker == "05"
    assert checkpoint.root["config"] == config
    np.testing.assert_array_equal(checkpoint.root["weight"]["a"].read(), np.ones(3))


def test_reading_never_imports_torch(tmp_path: Path):
    torch.save({"a": torch.ones(3)}, tmp_path / "file.pt")
    program = (
        "import sys; from pathlib import Path; from gpt_sovits_mlx.convert.torchfile import read_torch;"
        f"print(read_torch(Path({str(tmp_path / 'file.pt')!r})).root['a'].read().sum(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.split() == ["3.0", "False"]


def saved(data: Any, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def refusal(path: Path) -> str:
    """The one line with which a file is refused, whether at opening or at reading its tensors."""
    with pytest.raises(WeightsError) as refused:
        root = read_torch(path).root
        for tensor in root.values():
            tensor.read()
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.6, 0.9, 0.99, 0.9999])
def test_truncated(tmp_path: Path, zipped: bool, share: float):
    data = saved({"a": torch.randn(40, 30), "b": torch.randn(300)}, zipped)
    path = tmp_path / "cut.pt"
    path.write_bytes(data[: int(len(data) * share)])
    assert "damaged" in refusal(path) or "not a PyTorch checkpoint" in refusal(path)


def test_changed_byte_is_noticed(tmp_path: Path):
    data = bytearray(saved({"a": torch.zeros(1000)}, True))
    archive = zipfile.ZipFile(io.BytesIO(data))
    entry = next(e for e in archive.infolist() if e.filename.endswith("data/0"))
    data[entry.header_offset + 2000] ^= 1
    path = tmp_path / "bad.pt"
    path.write_bytes(data)
    assert "checksum" in refusal(path)


def test_checksums_that_were_not_computed_are_not_missed(tmp_path: Path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(5)}, tmp_path / "file.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    np.testing.assert_array_equal(read_torch(tmp_path / "file.pt").root["a"].read(), np.arange(5))


FOREIGN = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1\n",
    "pickle": b"\x80\x04}.",
    "new marker": b"09\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign(tmp_path: Path, content: bytes):
    path = tmp_path / "foreign.pth"
    path.write_bytes(content)
    assert "not a PyTorch checkpoint" in refusal(path) or "newer than this package" in refusal(path)


def test_other_zip_archive(tmp_path: Path):
    path = tmp_path / "foreign.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    assert "holds no data.pkl" in refusal(path)


def test_missing_file_and_folder(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "missing.pth")
    assert "not a file" in refusal(tmp_path)


def repacked(path: Path, replace: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """Write the archive of a small checkpoint anew with some entries replaced (`None`: left out)."""
    source = zipfile.ZipFile(io.BytesIO(saved({"a": torch.arange(8.0).reshape(2, 4)}, True)))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in source.namelist():
            content = replace.get(name.partition("/")[2], source.read(name))
            if content is not None:
                archive.writestr(name, content)


def pickled_tensor(shape: bytes, stride: bytes, offset: bytes = b"K\x00", numel: bytes = b"K\x08") -> bytes:
    """A checkpoint's pickle of one float tensor with the given (hand-written) geometry."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + numel + b"tQ"
    arguments = storage + offset + shape + stride + b"\x89}"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."


BEYOND = {
    "shape": pickled_tensor(b"K\x03K\x04\x86", b"K\x04K\x01\x86"),
    "offset": pickled_tensor(b"K\x02K\x04\x86", b"K\x04K\x01\x86", offset=b"K\x01"),
    "stride": pickled_tensor(b"K\x02K\x04\x86", b"J\xff\xff\xff\x7fK\x01\x86"),
    "negative stride": pickled_tensor(b"K\x02K\x04\x86", b"J\xff\xff\xff\xffK\x01\x86"),
    "negative offset": pickled_tensor(b"K\x01K\x04\x86", b"K\x04K\x01\x86", offset=b"J\xff\xff\xff\xff"),
    "storage": pickled_tensor(b"K\x02K\x04\x86", b"K\x04K\x01\x86", numel=b"J\x00\x00\x00\x10"),
    "ranks": pickled_tensor(b"K\x02K\x04\x86", b"K\x04\x85"),
}


@pytest.mark.parametrize("pickled", BEYOND.values(), ids=BEYOND.keys())
def test_tensors_cannot_reach_beyond_their_storage(tmp_path: Path, pickled: bytes):
    path = tmp_path / "bad.pt"
    repacked(path, {"data.pkl": pickled})
    assert "damaged" in refusal(path)


def test_the_hand_written_pickle_is_sound(tmp_path: Path):
    path = tmp_path / "good.pt"
    repacked(path, {"data.pkl": pickled_tensor(b"K\x02K\x04\x86", b"K\x04K\x01\x86")})
    np.testing.assert_array_equal(read_torch(path).root["a"].read(), np.arange(8.0).reshape(2, 4))


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS.keys())
def test_stated_lengths_reserve_no_memory(tmp_path: Path, zipped: bool):
    huge = b"\x80\x05\x96" + (1 << 46).to_bytes(8, "little") + b"abc."
    path = tmp_path / "huge.pt"
    if zipped:
        repacked(path, {"data.pkl": huge})
    else:
        start = saved({}, False)
        path.write_bytes(start[: start.index(b".") + 1] + huge)
    assert "damaged" in refusal(path)


def test_missing_storage_compressed_entry_and_byte_order(tmp_path: Path):
    repacked(tmp_path / "a.pt", {"data/0": None})
    assert "storage 0 is missing" in refusal(tmp_path / "a.pt")
    repacked(tmp_path / "b.pt", {}, zipfile.ZIP_DEFLATED)
    assert "unreadable" in refusal(tmp_path / "b.pt")
    repacked(tmp_path / "c.pt", {"byteorder": b"big"})
    assert "big-endian" in refusal(tmp_path / "c.pt")
