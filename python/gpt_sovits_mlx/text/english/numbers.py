"""English number words: the reference's readings of numerals, built on the inflect package."""

from __future__ import annotations

from threading import Lock
from typing import Any

from gpt_sovits_mlx.text.loading import loaded_once
from gpt_sovits_mlx.text.symbols import split_words

# inflect stops at 10^36; long before that a listener wants digits, not quintillions.
_MAX_CARDINAL_DIGITS = 15
# The engine keeps its place in the number that it is reading.
_INFLECT_LOCK = Lock()
_MONTHS = split_words("January February March April May June July August September October November December")


@loaded_once
def _inflect() -> Any:
    import inflect  # takes over a second, and most texts hold no numeral

    return inflect.engine()


def _words(number: int | str, **options: Any) -> str:
    with _INFLECT_LOCK:
        return str(_inflect().number_to_words(number, **options))


def digits(numeral: str) -> str:
    """Digit by digit: "007" -> "zero zero seven"."""
    return " ".join(_words(int(digit)) for digit in numeral)


def cardinal(numeral: str) -> str:
    """An integer in words. 1001 to 2999 are read as years in pairs, as the reference does."""
    number = int(numeral)
    leading_zeros = len(numeral) - len(str(number))
    if len(numeral) > _MAX_CARDINAL_DIGITS or leading_zeros > 1 or (leading_zeros and len(numeral) > 3):
        return digits(numeral)
    if not 1000 < number < 3000:
        return _words(number, andword="")
    if number == 2000:
        return "two thousand"
    if 2000 < number < 2010:
        return "two thousand " + _words(number % 100)
    if number % 100 == 0:
        return _words(number // 100) + " hundred"
    return _words(number, andword="", zero="oh", group=2).replace(", ", " ")


def plain_cardinal(numeral: str) -> str:
    """An integer in words with "and", never as a year: the reference's reading inside fractions."""
    return _words(int(numeral)) if len(numeral) <= _MAX_CARDINAL_DIGITS else digits(numeral)


def ordinal(numeral: str) -> str:
    """ "21" -> "twenty-first"."""
    if len(numeral) > _MAX_CARDINAL_DIGITS:
        return digits(numeral)
    return _words(f"{int(numeral)}{_ordinal_ending(int(numeral))}")


def _ordinal_ending(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def decimal(numeral: str) -> str:
    """ "3.14" -> "three point one four"; "1.2.3" -> "one point two point three"; ".5" -> "point five"."""
    whole, *groups = numeral.split(".")
    spoken = [f"point {digits(group)}" for group in groups]
    return " ".join(([cardinal(whole)] if whole else []) + spoken)


def fraction(numerator: str, denominator: str) -> str:
    """ "3", "4" -> "three fourths"; a denominator of 2 is a half, of 1 is left out."""
    top = plain_cardinal(numerator)
    if int(denominator) == 1:
        return top
    one = int(numerator) == 1
    if int(denominator) == 2:
        return f"{top} {'half' if one else 'halves'}"
    return f"{top} {ordinal(denominator)}{'s' if int(numerator) > 1 else ''}"


def clock(hours: int, minutes: int, meridiem: str | None = None) -> str:
    """ "7", "45" -> "seven forty-five a.m."; hours above 12 are p.m.; a meridiem in the text wins."""
    period = meridiem or ("a.m." if hours < 12 else "p.m.")
    hour = _words(hours - 12 if hours > 12 else hours)
    if minutes == 0:
        return f"{hour} o'clock {period}"
    minute = _words(minutes) if minutes > 9 else f"oh {_words(minutes)}"
    return f"{hour} {minute} {period}"


def money(amount: str, unit: tuple[str, str], subunit: tuple[str, str] | None) -> str:
    """ "6.24" with ("dollar", "dollars") and ("cent", "cents") -> "six dollars and twenty-four cents"."""
    whole, _, rest = amount.partition(".")
    if subunit is None or len(rest) > 2:
        return f"{decimal(amount) if rest else cardinal(whole)} {unit[whole != '1' or bool(rest)]}"
    units, parts = int(whole or 0), int(rest.ljust(2, "0")) if rest else 0
    said = []
    if units or not parts:
        said.append(f"{cardinal(whole or '0')} {unit[units != 1]}")
    if parts:
        said.append(f"{cardinal(str(parts))} {subunit[parts != 1]}")
    return " and ".join(said)


def calendar_date(month: int, day: int, year: str) -> str:
    """3, 15, "2024" -> "March fifteenth, twenty twenty-four"."""
    return f"{_MONTHS[month - 1]} {ordinal(str(day))}, {cardinal(year)}"


def decade(numeral: str) -> str:
    """ "1990" -> "nineteen nineties"."""
    said = cardinal(numeral)
    return said[:-1] + "ies" if said.endswith("y") else said + "s"
