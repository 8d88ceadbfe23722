"""Dates, clock times and ratios in words."""

import re

from .numbers import DIGITS, spell_cardinal, spell_digits, spell_number

_MONTH = r"0?[1-9]|1[0-2]"
_DAY = r"0?[1-9]|[12]\d|3[01]"

_YEAR_SPAN = re.compile(r"(?<![\d.])(\d{4}|\d{2})年?[-~](\d{4}|\d{2})(?=年)")
_MONTH_SPAN = re.compile(r"(?<![\d./\-])(\d{1,2})[-~](\d{1,2})(?=[月日号])")
_YEAR = re.compile(rf"(?<![\d.])(\d{{2,4}})年(?:({_MONTH})月)?(?:({_DAY})([日号]))?")
_MONTH_DAY = re.compile(rf"(?<![\d.])({_MONTH})月(?:({_DAY})([日号]))?")
_NUMERIC_DATE = re.compile(
    r"(?<!\d)(\d{4})([-/.])(0[1-9]|1[012])\2(0[1-9]|[12]\d|3[01])"
    rf"|(?<!\d)((?:19|20)\d\d)([-/])({_MONTH})\6({_DAY})(?!\d)"
)
# 12年 is a year on its own (一二年), but a number of years where the words around it count.
_COUNTS_YEARS = re.compile(r"(?:[了近约满达共第逾]|整整|超过|将近|大约|不到|至少)$")
_COUNTED_AFTER = re.compile(r"来|间|内|时间|左右|以上|以来|之久|多")
_BEFORE_OR_AFTER = re.compile(r"之?[前后]")

_CLOCK = r"([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?"
_TIME_SPAN = re.compile(rf"(?<![\d:]){_CLOCK}[-~]{_CLOCK}(?![\d:])")
_TIME = re.compile(rf"(?<![\d:]){_CLOCK}(?![\d:])")
_RATIO = re.compile(r"(?<![\d:.])\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+(?![\d:])")
_SCORE = re.compile(r"(比分|比例|之比|比率|[以按])([是为达到了约]*)(\d+:\d+)(?![\d:])")


def spell_dates(text: str) -> str:
    """'2024年3月15日', '2024-03-15' and '2月14日' in words; years digit by digit, without 幺."""
    text = _YEAR_SPAN.sub(lambda match: f"{spell_digits(match[1])}到{spell_digits(match[2])}", text)
    text = _MONTH_SPAN.sub(lambda match: f"{spell_cardinal(match[1])}到{spell_cardinal(match[2])}", text)
    text = _YEAR.sub(_spell_year, text)
    text = _NUMERIC_DATE.sub(_spell_numeric_date, text)
    return _MONTH_DAY.sub(lambda match: _month(match[1]) + _day(match[2], match[3]), text)


def spell_times(text: str) -> str:
    """'8:30' -> '八点半', '8:30-9:15' -> '八点半至九点十五分', '3:1' and '比分21:15' -> ratios with 比."""
    text = _SCORE.sub(lambda match: match[1] + match[2] + _spell_ratio(match[3]), text)
    text = _TIME_SPAN.sub(lambda match: f"{_clock(*match.groups()[:3])}至{_clock(*match.groups()[3:])}", text)
    text = _TIME.sub(lambda match: _clock(*match.groups()), text)
    return _RATIO.sub(lambda match: _spell_ratio(match[0]), text)


def _spell_year(match: re.Match[str]) -> str:
    year, month, day, day_word = match.groups()
    if month is None and day is None:
        before, after = match.string[: match.start()], match.string[match.end() :]
        counted = _COUNTS_YEARS.search(before) or _COUNTED_AFTER.match(after)
        if "10" <= year <= "60":  # 20年后 counts, 98年后 and 08年后 name a year
            counted = counted or _BEFORE_OR_AFTER.match(after)
        hundreds = len(year) == 3 and year.endswith("00")
        if (counted and len(year) < 4) or hundreds or int(year) >= 3000:
            return f"{spell_cardinal(year)}年"
    return f"{spell_digits(year)}年" + _month(month) + _day(day, day_word)


def _spell_numeric_date(match: re.Match[str]) -> str:
    padded, free = match.group(1, 3, 4), match.group(5, 7, 8)
    year, month, day = padded if padded[0] else free
    return f"{spell_digits(year)}年" + _month(month) + _day(day, "日")


def _month(digits: str | None) -> str:
    return f"{spell_cardinal(digits)}月" if digits else ""


def _day(digits: str | None, word: str | None) -> str:
    return f"{spell_cardinal(digits)}{word}" if digits else ""


def _clock(hour: str, minute: str, second: str | None) -> str:
    has_seconds = second is not None and int(second) > 0
    words = f"{spell_cardinal(hour)}点"
    if minute == "30" and not has_seconds:
        words += "半"
    elif int(minute):
        words += f"{_two_places(minute)}分"
    return words + (f"{_two_places(second)}秒" if second is not None and has_seconds else "")


def _two_places(digits: str) -> str:
    """Minutes and seconds below ten keep their zero: '05' -> '零五'."""
    return (DIGITS[0] if digits.startswith("0") else "") + spell_cardinal(digits.lstrip("0"))


def _spell_ratio(ratio: str) -> str:
    return "比".join(spell_number(part) for part in ratio.split(":"))
