"""Numbers in words: cardinals, decimals and digits one by one."""

DIGITS = "零一二三四五六七八九"
# Place values that have a word of their own, as powers of ten, largest first.
_PLACES = {8: "亿", 4: "万", 3: "千", 2: "百", 1: "十"}

UNSIGNED = r"\d+(?:\.\d+)?"
SIGNED = rf"-?{UNSIGNED}"


def spell_digits(digits: str, telephone: bool = False) -> str:
    """Digits one by one; on the telephone 1 is 幺 (yao), which cannot be mistaken for 七 (qi)."""
    words = "".join(DIGITS[int(digit)] for digit in digits)
    return words.replace("一", "幺") if telephone else words


def spell_cardinal(digits: str) -> str:
    """A whole number of any length: '1050' -> '一千零五十'. Leading zeros are silent; '' stays ''."""
    if not digits:
        return ""
    words = _spell_places(digits.lstrip("0")) or DIGITS[0]
    return words[1:] if words.startswith("一十") else words


def spell_number(number: str) -> str:
    """A decimal number, with or without sign: '-3.20' -> '负三点二零', '.5' -> '零点五'.

    Of trailing zeros behind the point one is spoken: the writer of 3.20 meant something by it.
    """
    sign = "负" if number.startswith("-") else ""
    whole, _, decimals = number.removeprefix("-").partition(".")
    kept = decimals.rstrip("0") + ("0" if decimals.endswith("0") else "")
    words = spell_cardinal(whole)
    if kept:
        words = f"{words or DIGITS[0]}点{spell_digits(kept)}"
    return sign + words


def _spell_places(digits: str) -> str:
    """Words for digits that may open with zeros; skipped places are one 零."""
    significant = digits.lstrip("0")
    if not significant:
        return ""
    if len(significant) == 1:
        return (DIGITS[0] if len(digits) > 1 else "") + DIGITS[int(significant)]
    place = next(power for power in _PLACES if power < len(significant))
    return _spell_places(digits[:-place]) + _PLACES[place] + _spell_places(digits[-place:])
