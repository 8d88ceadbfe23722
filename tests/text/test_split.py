"""Splitting, against pieces that the reference made (data/split_golden.jsonl)."""

import json
import random
from pathlib import Path

import pytest

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.markup import Markup
from gpt_sovits_mlx.text.split import SPLIT_METHODS, TERMINALS, split, terminated

GOLDEN = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "split_golden.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("method", SPLIT_METHODS)
def test_pieces_are_those_of_the_reference(method: str) -> None:
    items = [item for item in GOLDEN if item["method"] == method]
    assert len(items) >= 10
    for item in items:
        assert split(item["text"], item["language"], method) == item["pieces"], item["text"]


def test_short_opening_is_led_in() -> None:
    assert split("好，我们走吧", "zh", "cut0") == ["。好，我们走吧。"]
    assert split("No, thank you", "en", "cut0") == [".No, thank you."]
    assert split("，好的我们走吧", "zh", "cut0") == ["，好的我们走吧。"]


def test_decimal_points_do_not_split() -> None:
    assert split("It is 3.14159 or so. Well then.", "en", "cut5") == ["It is 3.14159 or so.", " Well then."]
    assert split("It is 3.14159 or so. Well then.", "en", "cut4") == ["It is 3.14159 or so.", " Well then."]


def test_last_boundary_of_cut1_is_given_up() -> None:
    nine = "".join(f"这是第{n}句话。" for n in "一二三四五六七八九")
    assert [piece.count("。") for piece in split(nine, "zh", "cut1")] == [4, 5]
    assert [piece.count("。") for piece in split(nine[:-7], "zh", "cut1")] == [8]


def test_long_pieces_are_cut() -> None:
    clauses = split("很长的一个句子没有句号，" * 100, "zh", "cut0")
    assert "".join(clauses) == "很长的一个句子没有句号，" * 100
    assert max(map(len, clauses)) <= 510
    unmarked = split("word " * 300, "en", "cut0")
    assert max(map(len, unmarked)) <= 510
    assert all(piece.split() == ["word"] * len(piece.split()) for piece in unmarked[:-1])


def test_overrides_stay_whole() -> None:
    markup = Markup()
    text = markup.extract("{U.S.|Y UW1 EH1 S} is far. " + "x" * 495 + "{重庆重庆|chong2 qing4 chong2 qing4}" * 20)
    for method in SPLIT_METHODS:
        pieces = split(text, "zh", method)
        found = [run for piece in pieces for run in markup.runs(piece)]
        assert [end - start for start, end, _ in found] == [4] * 21


def test_nothing_to_speak_gives_no_piece() -> None:
    for text in ("", "\n\n", "！？。", " ", "…… ——", "。\n。"):
        for method in SPLIT_METHODS:
            assert split(text, "zh", method) == []


def test_unknown_method_is_refused() -> None:
    with pytest.raises(TextError, match=r"'cut6'.*cut5"):
        split("你好", "zh", "cut6")


def test_terminal_mark_follows_the_language() -> None:
    assert terminated("你好", "zh") == "你好。"
    assert terminated("你好", "auto") == "你好。"
    assert terminated("Hello", "en") == "Hello."
    assert terminated("Hello!", "en") == "Hello!"


def test_random_texts_keep_their_promises() -> None:
    random.seed(3)
    letters = "你好世界 ab12，。？！,.?!~:—…;\n-"
    for _ in range(600):
        text = "".join(random.choices(letters, k=random.choice([2, 9, 60, 700])))
        for method in SPLIT_METHODS:
            pieces = split(text, "zh", method)
            assert all(len(piece) <= 510 and any(c.isalnum() for c in piece) for piece in pieces)
            if method in ("cut0", "cut5"):
                spoken = "".join(c for c in "".join(pieces) if c.isalnum())
                assert spoken == "".join(c for c in text if c.isalnum())
            assert all(piece[-1] in TERMINALS for piece in pieces if len(piece) < 500)
