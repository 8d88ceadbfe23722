"""The symbol tables: one moved id would make every published weight speak another phone."""

import hashlib

import pytest

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.symbols import ARPABET, SYMBOLS_V1, SYMBOLS_V2, symbol_table

DIGESTS = {
    "v1": "f7c3b280b9cc519b0829a6f182fcdd208643a07f1e20c1ab2bf4fc9e8e9a7ca6",
    "v2": "0771f6cd6f6201e8c2b0de921dc69cc04caf3f346c599d4a41413967d5674da7",
}
KNOWN_V2 = {
    "!": 0,
    "AH0": 12,
    "UNK": 86,
    "_": 95,
    "zh": 320,
    "…": 321,
    "[": 322,
    "]": 323,
    "ㄱ": 324,
    "Ya": 353,
    "Yz": 731,
}


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_table_is_the_one_that_the_weights_know(name: str) -> None:
    digest = hashlib.sha256("\n".join(symbol_table(name).symbols).encode()).hexdigest()
    assert digest == DIGESTS[name]


def test_sizes_and_known_positions() -> None:
    assert (len(SYMBOLS_V1), len(SYMBOLS_V2)) == (322, 732)
    assert SYMBOLS_V2[:322] == SYMBOLS_V1
    assert {symbol: SYMBOLS_V2.index(symbol) for symbol in KNOWN_V2} == KNOWN_V2


def test_ids_follow_the_table() -> None:
    table = symbol_table("v2")
    assert table.ids(["HH", "AH0", "L", "OW1", "."]) == (51, 12, 62, 68, 3)
    assert table.ids(table.symbols) == tuple(range(732))


def test_unknown_phones_and_tables() -> None:
    assert symbol_table("v1").known(["AH0", "Yz", "#"]) == ("AH0", "UNK", "UNK")
    with pytest.raises(TextError, match="'Yz'"):
        symbol_table("v1").ids(["Yz"])
    with pytest.raises(TextError, match="'v9'"):
        symbol_table("v9")


def test_all_of_arpabet_has_an_id() -> None:
    assert all(phone in symbol_table("v1") for phone in ARPABET)
    assert len(ARPABET) == 24 + 15 * 3
