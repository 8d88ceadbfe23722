"""Reading pickles from strangers: a pickle machine that builds data and can run nothing.

Python's own unpickler imports and calls whatever a file names. This one interprets the opcodes itself (parsed
by the standard library's `pickletools`): a global is only a `Global`, a name, and only the names in `KNOWN`
are accepted, each with a function of ours that builds plain data from the arguments. There is no
import, no attribute look-up and no call of anything that comes from the file.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ..errors import WeightsError

Builder = Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Global:
    """A class or function that a pickle names: never imported, never called."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Attributes(dict[str, Any]):
    """The attributes of an object whose class only carries values (`utils.HParams`)."""


class DamagedPickle(Exception):
    """The bytes are not a complete, well-formed pickle."""


_DIRECT = frozenset(  # opcodes that push their own argument
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MALFORMED = (
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    EOFError,
    OverflowError,
    RecursionError,
    pickle.UnpicklingError,
)


def load_pickle(stream: BinaryIO | mmap.mmap, source: str, known: dict[str, Builder | None], storage: Builder) -> Any:
    """Read one pickle from `stream`, which is left just behind it.

    Args:
        stream: at the start of a pickle; its `read` must not reserve more memory than there is to read.
        source: the file's name, for error messages.
        known: `module.name` → function that builds its value from the arguments, or `None` for names
            that may only be mentioned (a dtype, a storage class). See `KNOWN`.
        storage: builds what a persistent id (a tuple) stands for.

    Raises:
        WeightsError: the pickle asks for anything that is not known.
        DamagedPickle: the pickle ends early or is malformed.
    """
    machine = _Machine(source, known, storage)
    try:
        for opcode, argument, _ in pickletools.genops(cast(BinaryIO, stream)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except _MALFORMED as error:
        raise DamagedPickle(str(error)) from None
    raise DamagedPickle("it has no end")


class _Machine:
    """The stack machine of the pickle protocols 0 to 5, restricted to building data."""

    def __init__(self, source: str, known: dict[str, Builder | None], storage: Builder):
        self.source = source
        self.known = known
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _DIRECT:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(self.stack) < count:
                raise IndexError("stack underflow")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name not in ("PROTO", "FRAME"):
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                raise self._refusal(f"the pickle operation {name} {argument or ''}".rstrip())
            operation(argument)

    # Marks and the memo

    def _mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop(self, _: Any) -> None:
        self.stack.pop() if self.stack else self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    _binput = _long_binput = _put
    _binget = _long_binget = _get

    # Containers

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(_pairs(items))

    def _frozenset(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(frozenset(map(_key, items)))

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[_key(key)] = value

    def _setitems(self, _: Any) -> None:
        items = self._since_mark()
        self._top(dict).update(_pairs(items))

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        self._top(set).update(map(_key, items))

    def _top(self, kind: type) -> Any:
        top = self.stack[-1]
        if type(top) is not kind and not (kind is dict and type(top) is Attributes):
            raise TypeError(f"expected a {kind.__name__} below the items")
        return top

    # Names and what is built from them

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError("a global's name must be text")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        found = Global(module, name)
        if str(found) not in self.known:
            raise self._refusal(str(found))
        self.stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._build_from(function, arguments))

    _newobj = _reduce

    def _build_from(self, function: Any, arguments: Any) -> Any:
        builder = self.known.get(str(function)) if isinstance(function, Global) else None
        if builder is None:
            raise self._refusal(f"a call of {_short(function)}")
        if not isinstance(arguments, tuple):
            raise TypeError("arguments must be a tuple")
        return builder(arguments)

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Attributes and type(state) is dict and all(isinstance(k, str) for k in state):
            target.update(state)
        elif type(target) is not dict or type(state) is not dict:
            # torch keeps `_metadata` as an attribute of a state dict, which is of no use here
            raise self._refusal(f"setting the state of {_short(target)}")

    def _inst(self, argument: str) -> None:
        raise self._refusal(f"an instance of {argument.replace(' ', '.')}")

    def _obj(self, _: Any) -> None:
        items = self._since_mark()
        raise self._refusal(f"an instance of {_short(items[0])}")

    def _binpersid(self, _: Any) -> None:
        identity = self.stack.pop()
        if not isinstance(identity, tuple):
            raise TypeError("a persistent id must be a tuple")
        self.stack.append(self.storage(identity))

    def _refusal(self, wanted: str) -> WeightsError:
        return WeightsError(
            f"{self.source} is not safe to open: beside tensors and numbers it asks for {wanted[:120]!r};"
            " nothing of it was run. Get the weights from their author as an official GPT-SoVITS file"
        )


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(value: Any) -> Any:
    """A key of a dict or a member of a set: a plain value (hashing deeply nested tuples can crash Python)."""
    if value is not None and not isinstance(value, str | bytes | int | float | Global):
        raise TypeError(f"a {type(value).__name__} as a key")
    return value


def _short(value: Any) -> str:
    return str(value) if isinstance(value, Global) else type(value).__name__


def _items(arguments: tuple[Any, ...]) -> list[Any]:
    """The items that a container is made from: no argument, or one list, tuple or set."""
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], list | tuple | set)):
        raise TypeError("unexpected arguments of a container")
    return list(*arguments)


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if len(arguments) == 1 and type(arguments[0]) is dict:
        return dict(arguments[0])
    return {_key(key): value for key, value in _items(arguments)}


def _no_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise TypeError("unexpected arguments of bytes")
    return b""


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments  # how protocol 2 spells bytes
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("unexpected encoding")
    return text.encode("latin-1")


def _path(arguments: tuple[Any, ...]) -> str:
    return "/".join(str(part) for part in arguments)


_BUILTINS: dict[str, Builder | None] = {
    "set": lambda arguments: set(map(_key, _items(arguments))),
    "frozenset": lambda arguments: frozenset(map(_key, _items(arguments))),
    "list": _items,
    "dict": _mapping,
    "bytes": _no_bytes,
    "object": None,
    "int": None,
    "float": None,
    "str": None,
    "bool": None,
}

KNOWN: dict[str, Builder | None] = {
    **{f"{module}.{name}": build for module in ("builtins", "__builtin__") for name, build in _BUILTINS.items()},
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": lambda arguments: {},
    "_codecs.encode": _encoded,
    # The trainer's configuration: a class that only carries attributes.
    "utils.HParams": lambda arguments: Attributes(),
    "GPT_SoVITS.utils.HParams": lambda arguments: Attributes(),
    # Folders that PyTorch Lightning stores among the hyper-parameters.
    **{
        f"{module}.{name}": _path
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    },
}
"""Every name that may stand in a checkpoint beside torch's own, with the data that stands for it."""
