"""Checkpoints that ask for anything but data are refused by name, and nothing of them runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_sovits_mlx.convert.pickles import KNOWN, DamagedPickle, load_pickle
from gpt_sovits_mlx.convert.torchfile import read_torch
from gpt_sovits_mlx.errors import WeightsError

LEGACY_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."


class Reduced:
    """Pickled as a call of `function(*arguments)`, with an optional state."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def firing(trace: Path) -> dict[str, bytes]:
    """Pickles that create `trace` when Python's own unpickler reads them."""
    command = f"touch {trace}"
    call = f"__import__('os').system({command!r})"
    return {
        "reduce": pickle.dumps(Reduced(os.system, command), protocol=2),
        "reduce, protocol 4 (STACK_GLOBAL)": pickle.dumps(Reduced(os.system, command), protocol=4),
        "reduce, protocol 0": pickle.dumps(Reduced(os.system, command), protocol=0),
        "eval": pickle.dumps(Reduced(eval, call), protocol=2),
        "exec": pickle.dumps(Reduced(exec, call), protocol=2),
        "nested in a state dict": pickle.dumps({"weight": OrderedDict(a=[(1, Reduced(os.system, command))])}),
        "as a dictionary's key": pickle.dumps({Reduced(os.system, command): 1}, protocol=2),
        "as the argument of an allowed class": (
            b"\x80\x02ccollections\nOrderedDict\n(cbuiltins\neval\n" + text(f"[{call}] and []") + b"\x85RtR."
        ),
        "getattr chain": (
            b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n"
            + text("os")
            + b"\x85R"
            + text("system")
            + b"\x86R"
            + text(command)
            + b"\x85R."
        ),
        "instance (INST)": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "object (OBJ)": b"(cos\nsystem\n" + text(command) + b"o.",
        "two-part name": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(command) + b"\x85R.",
        "posixpath's own import": b"\x80\x04"
        + text("posixpath")
        + text("os.system")
        + b"\x93"
        + text(command)
        + b"\x85R.",
    }


INERT = {
    "state of a class that is allowed": b"\x80\x02cutils\nHParams\n}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "state of an allowed class, plain": b"\x80\x02cutils\nHParams\n}" + text("x") + b"K\x01sb.",
    "state of an allowed function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"K\x01sb.",
    "slots of an instance": b"\x80\x02cutils\nHParams\n)\x81N}" + text("__class__") + b"K\x01s\x86b.",
    "state with odd keys": b"\x80\x02cutils\nHParams\n)\x81}K\x01K\x02sb.",
    "state of a list": b"\x80\x02]}" + text("append") + b"K\x01sb.",
    "call of text": b"\x80\x02" + text("os.system") + text("true") + b"\x85R.",
    "call of a dtype": b"\x80\x02ctorch\nfloat16\n)R.",
    "call of a dict": b"\x80\x02})R.",
    "new object with keywords": b"\x80\x04cutils\nHParams\n)}\x92.",
    "extension registry": b"\x80\x02\x82\x01.",
    "text persistent id": b"Pos.system\n.",
    "torch's nested loading": b"\x80\x02ctorch.storage\n_load_from_bytes\n" + text("x") + b"\x85R.",
    "hparams of another module": b"\x80\x02cevil.utils\nHParams\n)\x81.",
    "attribute below an allowed name": b"\x80\x02ccollections\nOrderedDict.fromkeys\n)R.",
    "codecs": b"\x80\x02c_codecs\nlookup\n" + text("x") + b"\x85R.",
}


def in_zip(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def in_legacy(pickled: bytes) -> bytes:
    return LEGACY_HEAD + pickled + b"\x80\x02]."


def in_legacy_system(pickled: bytes) -> bytes:
    """The pickle stands where the description of the writing machine belongs."""
    return LEGACY_HEAD[: -len(b"\x80\x02}.")] + pickled


CONTAINERS = {"zip": in_zip, "legacy": in_legacy, "legacy header": in_legacy_system}


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS.keys())
@pytest.mark.parametrize("name", firing(Path("trace")).keys())
def test_attacks_do_not_run(tmp_path: Path, name: str, contain: Callable[[bytes], bytes]):
    trace = tmp_path / "trace"
    pickled = firing(trace)[name]
    pickle.loads(pickled)  # the attack is real
    assert trace.exists()
    trace.unlink()
    path = tmp_path / "attack.pth"
    path.write_bytes(contain(pickled))
    with pytest.raises(WeightsError, match="not safe to open") as refused:
        read_torch(path)
    assert not trace.exists()
    named = ("system", "eval", "exec", "getattr")
    assert any(word in str(refused.value) for word in named)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS.keys())
@pytest.mark.parametrize("pickled", INERT.values(), ids=INERT.keys())
def test_tricks_on_allowed_names_are_refused(tmp_path: Path, pickled: bytes, contain: Callable[[bytes], bytes]):
    path = tmp_path / "attack.pth"
    path.write_bytes(contain(pickled))
    with pytest.raises(WeightsError, match="not safe to open"):
        read_torch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_attack_saved_by_torch(tmp_path: Path, zipped: bool):
    trace, path = tmp_path / "trace", tmp_path / "attack.ckpt"
    data = {"weight": {"a": torch.ones(2)}, "config": Reduced(os.system, f"touch {trace}")}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"system"):
        read_torch(path)
    assert not trace.exists()


def load(pickled: bytes) -> Any:
    return load_pickle(io.BytesIO(pickled), "test", KNOWN, lambda identity: identity)


MALFORMED = {
    "no end": b"\x80\x02}",
    "empty stack": b"\x80\x02.",
    "missing mark": b"\x80\x02t.",
    "missing memo": b"\x80\x02h\x05.",
    "tuple of too few": b"\x80\x02K\x01\x87.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "key without value": b"\x80\x02}(K\x01u.",
    "list as a key": b"\x80\x02}]K\x01s.",
    "deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "unknown opcode": b"\x80\x02\xff.",
    "length beyond the end": b"\x80\x02X\xff\xff\xff\x7fab.",
    "bytes of a size": b"\x80\x02cbuiltins\nbytes\nJ\x00\x00\x00\x7f\x85R.",
}


@pytest.mark.parametrize("pickled", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(pickled: bytes):
    with pytest.raises(DamagedPickle):
        load(pickled)


DATA: dict[str, Any] = {
    "empty": {},
    "nested": {"a": [1, (2, 3.5, -(1 << 40)), {"b": None}], "c": True},
    "text and bytes": ["中文", "a" * 300, b"\x00\xff" * 200, b"", ""],
    "sets": [{1, 2}, frozenset({"x"})],
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    "shared": [[7]] * 3,
}


@pytest.mark.parametrize("protocol", [*range(pickle.HIGHEST_PROTOCOL + 1)])
@pytest.mark.parametrize("value", DATA.values(), ids=DATA.keys())
def test_data_of_every_protocol(value: Any, protocol: int):
    assert load(pickle.dumps(value, protocol)) == value
