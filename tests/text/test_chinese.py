"""Chinese: numbers from the reference implementation, its mistakes mended, and what always holds."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.chinese import g2p, normalize, syllable_to_phones
from gpt_sovits_mlx.text.chinese.numbers import spell_cardinal, spell_number
from gpt_sovits_mlx.text.symbols import SYMBOLS_V2

DATA = Path(__file__).parent / "data"
SYMBOLS = frozenset(SYMBOLS_V2)


def _items(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


GOLDEN = _items("zh_golden.jsonl")
CORRECTED = _items("zh_corrected.jsonl")


def _spoken(text: str) -> str:
    return " ".join(g2p(text)[0])


@pytest.mark.parametrize("item", GOLDEN, ids=lambda item: item["id"])
def test_equals_the_reference(item: dict[str, Any]) -> None:
    norm_text = normalize(item["text"])
    phones, word2ph = g2p(norm_text)
    assert norm_text == item["norm_text"]
    assert " ".join(phones) == item["phones"]
    assert word2ph == item["word2ph"]


@pytest.mark.parametrize("item", CORRECTED, ids=lambda item: item["reason"])
def test_reads_what_the_reference_misreads(item: dict[str, Any]) -> None:
    assert normalize(item["text"]) == item["norm_text"]
    assert item["norm_text"] != item["reference"]


@pytest.mark.parametrize(
    ("norm_text", "phones", "reason"),
    [
        ("一心一意地做", "y i4 x in1 y i2 y i4 d e5 z uo4", "adverbial 地 is de5; the reference says di5"),
        ("银行行长", "y in2 h ang2 h ang2 zh ang3", "two words meet in 行: no reduplication"),
        ("头发很长", "t ou2 f a5 h en3 ch ang2", "长 is long here; the reference says zhang3"),
        ("全长十公里", "q van2 ch ang2 sh ir2 g ong1 l i3", "长 is long here, too"),
        ("他长大了", "t a1 zh ang3 d a4 l e5", "but it still grows here"),
    ],
)
def test_pronounces_what_the_reference_mispronounces(norm_text: str, phones: str, reason: str) -> None:
    assert _spoken(norm_text) == phones, reason


@pytest.mark.parametrize("item", GOLDEN + CORRECTED, ids=lambda item: item["text"])
def test_normalised_text_holds_its_promises(item: dict[str, Any]) -> None:
    norm_text = normalize(item["text"])
    phones, word2ph = g2p(norm_text)
    assert len(word2ph) == len(norm_text)
    assert sum(word2ph) == len(phones)
    assert set(word2ph) <= {1, 2}
    assert set(phones) <= SYMBOLS
    assert normalize(norm_text) == norm_text


def test_every_character_has_phones_or_an_error() -> None:
    unknown = []
    for code in range(0x4E00, 0x9FA6):
        try:
            phones, word2ph = g2p(chr(code))
        except TextError as error:
            assert chr(code) in str(error)
            unknown.append(chr(code))
            continue
        assert word2ph == [2]
        assert set(phones) <= SYMBOLS
    assert len(unknown) < 20


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "零"), ("10", "十"), ("12", "十二"), ("110", "一百一十"), ("1050", "一千零五十"),
        ("10500", "一万零五百"), ("100010", "十万零一十"), ("1001000", "一百万一千"), ("1400000000", "十四亿"),
        ("100500000", "一亿零五十万"), ("007", "七"),
    ],
)  # fmt: skip
def test_cardinals(number: str, words: str) -> None:
    assert spell_cardinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [("3.20", "三点二零"), ("3.00", "三点零"), (".5", "零点五"), ("-0.05", "负零点零五"), ("-7", "负七")],
)
def test_decimals(number: str, words: str) -> None:
    assert spell_number(number) == words


def test_text_without_speech_is_empty() -> None:
    assert normalize("") == normalize("hello @#") == ""
    assert g2p("") == ([], [])


def test_pause_signs_are_pauses() -> None:
    norm_text = normalize("你￥好^吗，好")
    assert norm_text == "你￥好^吗,好"
    assert g2p(norm_text) == (["n", "i3", "SP2", "h", "ao3", "SP3", "m", "a5", ",", "h", "ao3"], [2, 1, 2, 1, 2, 1, 2])


@pytest.mark.parametrize(
    ("pinyin", "phones"),
    [
        ("zhong4", ("zh", "ong4")), ("lv4", ("l", "v4")), ("lü4", ("l", "v4")), ("lu:4", ("l", "v4")),
        ("nüe4", ("n", "ve4")), ("nue4", ("n", "ve4")), ("ju1", ("j", "v1")), ("yuan2", ("y", "van2")),
        ("xün2", ("x", "vn2")), ("yan3", ("y", "En3")), ("ye4", ("y", "E4")), ("yi1", ("y", "i1")),
        ("wu3", ("w", "u3")), ("zhi1", ("zh", "ir1")), ("ri4", ("r", "ir4")), ("zi5", ("z", "i05")),
        ("si0", ("s", "i05")), ("er2", ("EE", "er2")), ("a1", ("AA", "a1")), ("ou3", ("OO", "ou3")),
        ("Liu2", ("l", "iu2")), ("qiong2", ("q", "iong2")),
    ],
)  # fmt: skip
def test_syllables(pinyin: str, phones: tuple[str, str]) -> None:
    assert syllable_to_phones(pinyin) == phones
    assert set(phones) <= SYMBOLS


@pytest.mark.parametrize("pinyin", ["", "4", "zhong", "zhong6", "bong1", "fiao4", "zhōng", "hello1", "r5", " ma1"])
def test_what_is_no_syllable(pinyin: str) -> None:
    with pytest.raises(TextError, match="not a pinyin syllable"):
        syllable_to_phones(pinyin)


def test_override_replaces_dictionary_and_tone_rules() -> None:
    assert _spoken("重庆") == "ch ong2 q ing4"
    assert " ".join(g2p("重庆", [(0, 2, ["zhong4", "qing4"])])[0]) == "zh ong4 q ing4"
    assert " ".join(g2p("你好", [(0, 1, ["ni3"])])[0]) == "n i3 h ao3"  # no third-tone sandhi
    assert " ".join(g2p("妈妈", [(1, 2, ["ma1"])])[0]) == "m a1 m a1"  # no neutral tone


def test_neighbours_see_an_override() -> None:
    assert _spoken("不好") == "b u4 h ao3"
    assert " ".join(g2p("不好", [(1, 2, ["hao4"])])[0]) == "b u2 h ao4"


def test_override_counts_positions_across_marks() -> None:
    phones, word2ph = g2p("好,行.", [(2, 3, ["hang2"])])
    assert (" ".join(phones), word2ph) == ("h ao3 , h ang2 .", [2, 1, 2, 1])


def test_override_reads_a_character_that_no_dictionary_knows() -> None:
    with pytest.raises(TextError, match="兙"):
        g2p("一兙")
    assert " ".join(g2p("一兙", [(1, 2, ["ke4"])])[0]) == "y i2 k e4"


@pytest.mark.parametrize(
    ("start", "end", "pinyin", "message"),
    [
        (0, 3, ["ni3", "hao3", "ma5"], "outside"),
        (-1, 1, ["ni3", "hao3"], "outside"),
        (1, 1, [], "outside"),
        (0, 2, ["ni3"], "one for each character"),
        (0, 1, ["blah1"], "not a pinyin syllable"),
    ],
)
def test_override_that_does_not_fit(start: int, end: int, pinyin: list[str], message: str) -> None:
    with pytest.raises(TextError, match=message):
        g2p("你好", [(start, end, pinyin)])


def test_marks_take_no_pronunciation() -> None:
    with pytest.raises(TextError, match="punctuation"):
        g2p("好,好", [(0, 2, ["hao3", "hao3"])])


def test_lexicon_takes_the_longest_word_everywhere() -> None:
    lexicon = {"重": ["zhong4"], "重庆": ["chong2", "qing4"], "单": ["shan4"]}
    spoken = " ".join(g2p("重庆重,单.", lexicon=lexicon)[0])
    assert spoken == "ch ong2 q ing4 zh ong4 , sh an4 ."


def test_override_goes_before_the_lexicon() -> None:
    phones, _ = g2p("单单", [(1, 2, ["chan2"])], {"单": ["shan4"]})
    assert " ".join(phones) == "sh an4 ch an2"


def test_text_that_was_not_normalised_is_an_error() -> None:
    with pytest.raises(TextError, match="no reading"):
        g2p("ABC")


def test_traditional_characters_by_phrase() -> None:
    assert normalize("乾隆皇帝說：乾淨！") == "乾隆皇帝说,干净!"
    assert normalize("土著居民的專著，隨著時間") == "土著居民的专著,随着时间"
    assert normalize("显著的乾坤，什么") == "显著的乾坤,什么"  # simplified text stays as it is


def test_threads_agree() -> None:
    sentences = [item["norm_text"] for item in GOLDEN[:40]]
    expected = [g2p(sentence) for sentence in sentences]
    results: list[object] = [None] * 4

    def work(slot: int) -> None:
        results[slot] = [g2p(sentence) for sentence in sentences]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_first_use_is_quiet_and_import_loads_no_dictionary() -> None:
    program = (
        "import sys; from gpt_sovits_mlx.text.chinese import g2p, normalize;"
        "assert not {'jieba', 'pypinyin', 'opencc', 'mlx'} & sys.modules.keys();"
        "g2p(normalize('我們喜歡長江。'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
