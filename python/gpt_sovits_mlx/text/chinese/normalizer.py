"""Chinese text as it is spoken: numbers, dates, units and signs in words, punctuation in the model's six marks.

The rules and their order are those of the reference implementation (GPT-SoVITS, chinese2.py, after
PaddleSpeech's text front end), whose output the published weights were trained on. Where it misreads (a ratio
3:1, km/h, the digits of a long decimal as a telephone number, 50-60人 as a subtraction) the text is read as a
person would read it.
"""

import re

from . import arithmetic, characters, dates, quantities, telephone
from .numbers import spell_digits, spell_number

# What a Chinese text may contain once it is normalised, besides 一-龥. ￥ and ^ are pauses (SP2, SP3).
PUNCTUATION = "!?…,.-"
PAUSES = {"￥": "SP2", "^": "SP3"}

_SPACE_OR_BRACKET = re.compile(r"[ \u3000—《》【】<>{}()（）#&@“”_|\\]+")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[《》【】{}()（）#&@“”_|\\]+(?=\d)")
_SPACED_NUMBERS = re.compile(r"([\d:./\-]*\d) +(?=([\d:./\-]+))")
_BOUNDARY = "\u200b"
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])")
_DASH = re.compile(r"(?<=[\d%℃度年月日号点时])[—–]+(?=\d)|(?<=[\d%℃度年月日号点时分秒个元米CFgml])～(?=-?\d)")
_FULL_WIDTH_BETWEEN_DIGITS = str.maketrans({"：": ":", "．": "."})
_FULL_WIDTH_JOINT = re.compile(r"(?<=\d)[：．](?=\d)")
_FULL_WIDTH_MINUS = re.compile(r"[－−](?=\d)")

_NEGATIVE = re.compile(r"(?<![A-Za-z])-(?:\d+(?:\.\d+)?|\.\d+)(?!\.?\d)")
_DECIMAL = re.compile(r"\d*\.\d+")
_DIGIT_ROW = re.compile(r"\d{3,}")
_NUMBER = re.compile(r"\d+")

# A slash between two measures is 每 (元/斤); elsewhere it separates (他/她).
_PER = re.compile(r"(?<=[元米克升里吨度角块分万亿焦瓦帕次人个])/(?=[一-龥])")
_DASH_BETWEEN_WORDS = re.compile(r"(?<=[一-龥])-+(?=[一-龥])")
_LEFTOVER_OPERATORS = str.maketrans({"+": "加", "×": "乘", "÷": "除", "=": "等", "-": None})

_MARKS = str.maketrans(
    {"：": ",", "；": ",", "，": ",", "、": ",", "·": ",", "/": ",", "。": ".", "！": "!", "？": "?", "$": "."}
    | {"~": "…", "～": "…"}
)
_INTERJECTIONS = str.maketrans({"嗯": "恩", "呣": "母"})
_UNSPOKEN = re.compile(rf"[^一-龥{re.escape(PUNCTUATION)}￥^]+")
_MARK_RUN = re.compile(rf"([{re.escape(PUNCTUATION)}￥^])[{re.escape(PUNCTUATION)}￥^]+")


def normalize(text: str) -> str:
    """Chinese text -> the characters that are spoken: 一-龥, the marks !?…,.- and the pauses ￥ and ^.

    Latin letters are dropped (the front end routes them to the English rules first), except where they
    are units of a number. A text without anything speakable comes back as ''.
    """
    text = _tidy(text)
    text = dates.spell_dates(text)
    text = dates.spell_times(text)
    text = telephone.spell_telephone_numbers(text)
    text = quantities.spell_ranges(text)
    text = quantities.spell_temperatures(text)
    text = quantities.spell_units(text)
    text = arithmetic.spell_arithmetic(text)
    text = quantities.spell_fractions(text)
    text = quantities.spell_percentages(text)
    text = telephone.spell_local_numbers(text)
    text = quantities.spell_spans(text)
    text = _NEGATIVE.sub(lambda match: spell_number(match[0]), text)
    text = quantities.spell_versions(text)
    text = _DECIMAL.sub(lambda match: spell_number(match[0]), text)
    text = quantities.spell_counts(text)
    text = _DIGIT_ROW.sub(lambda match: spell_digits(match[0], telephone=True), text)
    text = _NUMBER.sub(lambda match: spell_number(match[0]), text)
    return _to_marks(_name_leftovers(text))


def _tidy(text: str) -> str:
    """One form for what can be written in several: widths, thousands, dashes, traditional characters."""
    text = characters.to_half_width(text)
    text = _THOUSANDS.sub(_spell_thousands, text)
    text = quantities.spell_money(text)
    text = arithmetic.spell_comparisons(text)
    text = _DASH.sub("~", text)
    text = _FULL_WIDTH_JOINT.sub(lambda match: match[0].translate(_FULL_WIDTH_BETWEEN_DIGITS), text)
    text = _FULL_WIDTH_MINUS.sub("-", text)
    text = _SPACED_NUMBERS.sub(_close_gap, text)
    text = _BETWEEN_DIGITS.sub(_BOUNDARY, text)
    return characters.to_simplified(_SPACE_OR_BRACKET.sub("", text))


def _spell_thousands(match: re.Match[str]) -> str:
    """Thousands in groups are a quantity, never a row of digits; what goes on as a formula stays a number."""
    number = match[0].replace(",", "")
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return number if before in set("$€£¥￥-+×÷=~/") or after in set("%‰°℃度-+×÷=~/") else spell_number(number)


def _close_gap(match: re.Match[str]) -> str:
    """Groups of one number (138 1234 5678) join; a date and a time stay apart."""
    before, after = match[1], match[2]
    apart = any(sign in before + after for sign in ":./") or ("-" in before and "-" in after)
    return before + (_BOUNDARY if apart else "")


def _name_leftovers(text: str) -> str:
    """Signs that no rule above has claimed."""
    text = _PER.sub("每", text)
    text = _DASH_BETWEEN_WORDS.sub(",", text)
    return characters.name_signs(text).translate(_LEFTOVER_OPERATORS)


def _to_marks(text: str) -> str:
    """Punctuation as the model's marks, everything unspoken dropped, the first of several marks kept."""
    text = text.translate(_INTERJECTIONS).replace("...", "…").translate(_MARKS)
    return _MARK_RUN.sub(r"\1", _UNSPOKEN.sub("", text))
