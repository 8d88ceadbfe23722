"""Arithmetic, powers and comparisons in words."""

import re

from .numbers import SIGNED

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ", "0123456789xyn", strict=True))
_RAISED = "".join(_SUPERSCRIPTS)
_LONE_LETTER = r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])"
_LOWER_LETTER = r"(?<![A-Za-z])[a-z](?![A-Za-z])"

_OPERATORS = {"+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等于"}
_BEFORE = rf"(?:(?<=[\d{_RAISED}])|(?<=(?<![A-Za-z])[A-Za-z]))"
_AFTER = rf"(?=-?\d|\.\d|{_LONE_LETTER})"
_OPERATION = re.compile(rf"{_BEFORE}([+×÷=]){_AFTER}")
# A hyphen between a capital and a number is no minus (F-16), nor is one inside a word (Wi-Fi).
_MINUS = re.compile(
    rf"(?:(?<=[\d{_RAISED}])|(?<=(?<![A-Za-z])[a-z]))-(?=-?\d|\.\d|{_LOWER_LETTER})"
    rf"|(?<=\d)-(?={_LONE_LETTER})"
)
_CARET_POWER = re.compile(r"(?<=[\dA-Za-z])\^(\d+|[a-z](?![a-z]))")
_POWER = re.compile(rf"[{_RAISED}]+")
_COMPARISONS = {">=": "大于等于", "<=": "小于等于", ">": "大于", "<": "小于"}
_COMPARISON = re.compile(rf"(?<=[\dA-Za-z%度℃])(>=|<=|>|<)(?={SIGNED}|{_LONE_LETTER})")
_SIGNS = {"≥": "大于等于", "≤": "小于等于", "≠": "不等于", "≈": "约等于", "±": "正负"}
_EQUALS_NOTHING = re.compile(r"(?<=\d)=(?=[?？]|$)")


def spell_comparisons(text: str) -> str:
    """'3>2' -> '3大于2', '≈' -> '约等于': to be called before brackets of the form <> are dropped."""
    text = _COMPARISON.sub(lambda match: _COMPARISONS[match[1]], text)
    return text.translate(str.maketrans(_SIGNS))


def spell_arithmetic(text: str) -> str:
    """'2+3=5' -> '2加3等于5', 'x²' -> 'x的2次方'; the numbers themselves stay."""
    text = _EQUALS_NOTHING.sub(_OPERATORS["="], text)
    text = _OPERATION.sub(lambda match: _OPERATORS[match[1]], text)
    text = _MINUS.sub(_OPERATORS["-"], text)
    text = _CARET_POWER.sub(lambda match: f"的{match[1]}次方", text)
    return _POWER.sub(lambda match: f"的{match[0].translate(str.maketrans(_SUPERSCRIPTS))}次方", text)
