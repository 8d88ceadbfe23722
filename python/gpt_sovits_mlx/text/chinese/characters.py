"""Characters: traditional -> simplified, full -> half width, signs that have a name."""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from .numbers import spell_cardinal

if TYPE_CHECKING:
    from opencc import OpenCC

_HANZI = re.compile("[一-龥]")
_OPENCC_LOCK = threading.Lock()

_FULL_WIDTH = {0xFEE0 + code: code for code in range(ord("!"), ord("~") + 1) if chr(code).isalnum()}
_FULL_WIDTH |= {ord("％"): "%", ord("＋"): "+", ord("＝"): "=", ord("／"): "/", ord("＜"): "<", ord("＞"): ">"}
_FULL_WIDTH |= {ord("〇"): "零", ord("⁄"): "/"}
# Squared units (㎏, ㎡ …) and vulgar fractions (½ …) decompose into characters that the rules know.
_COMPATIBILITY = re.compile("[\u3371-\u33df℉ℓ½⅓⅔¼¾⅕-⅞]")

_GREEK = {
    "α": "阿尔法", "β": "贝塔", "γΓ": "伽玛", "δΔ": "德尔塔", "ε": "艾普西龙", "ζ": "捷塔",
    "η": "依塔", "θΘ": "西塔", "ι": "艾欧塔", "κ": "喀帕", "λΛ": "拉姆达", "μ": "缪", "ν": "拗",
    "ξΞ": "克西", "ο": "欧米克伦", "πΠ": "派", "ρ": "肉", "ςΣσ": "西格玛", "τ": "套",
    "υ": "宇普西龙", "φΦ": "服艾", "χ": "器", "ψΨ": "普赛", "ωΩ": "欧米伽",
}  # fmt: skip
# Taiwan writes 著 for the particle 着 as well as for 'work, evident', which it still is behind these.
_AUTHORED = re.compile("(?<=[土卓专名巨原论译编遗拙昭])着")
_ENCLOSED_NUMBERS = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩⅪⅫ"
_NAMES = {ord(letter): name for letters, name in _GREEK.items() for letter in letters}
_NAMES |= {ord(sign): spell_cardinal(str(int(unicodedata.numeric(sign)))) for sign in _ENCLOSED_NUMBERS}


def to_half_width(text: str) -> str:
    """Full-width letters, digits and operators as ASCII; squared units and vulgar fractions spelled out."""
    text = _COMPATIBILITY.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return text.translate(_FULL_WIDTH)


def name_signs(text: str) -> str:
    """Greek letters and enclosed numbers by name: 'α' -> '阿尔法', '③' -> '三'."""
    return text.translate(_NAMES)


def to_simplified(text: str) -> str:
    """Traditional characters as simplified ones, character by character in number.

    A text that is traditional as a whole is converted by phrases (乾淨 -> 干净 but 乾隆 -> 乾隆, 看著 ->
    看着 but 顯著 -> 显著). In a simplified text only what is certainly traditional changes, for 著, 乾 and 么
    are simplified characters too.
    """
    traditional = [char for char in text if _HANZI.match(char) and not _encodes(char, "gb2312")]
    if not traditional:
        return text
    simplified = sum(1 for char in text if _HANZI.match(char) and not _encodes(char, "big5"))
    if len(traditional) > simplified:
        converted = _AUTHORED.sub("著", _converter("tw2s").convert(text))
    else:
        converter = _converter("t2s")
        converted = "".join(char if _encodes(char, "gb2312") else converter.convert(char) for char in text)
    # A form outside the basic block would be dropped later on: the traditional one at least has a reading.
    return "".join(
        new if not _HANZI.match(old) or _HANZI.match(new) else old for old, new in zip(text, converted, strict=True)
    )


def _encodes(char: str, charset: str) -> bool:
    try:
        char.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def _converter(config: str) -> OpenCC:
    with _OPENCC_LOCK:
        return _load_converter(config)


@cache
def _load_converter(config: str) -> OpenCC:
    from opencc import OpenCC

    return OpenCC(config)
