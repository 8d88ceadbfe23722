"""Telephone numbers, read digit by digit with 幺 for 1 and a short pause between their groups."""

import re

from .numbers import spell_digits

# A number behind a decimal point is never a telephone number.
_NOT_INSIDE = r"(?<![\d.])"
_MOBILE = re.compile(rf"{_NOT_INSIDE}(?:\+?86-?)?1[3-9]\d-?\d{{4}}-?\d{{4}}(?![+\-×÷=]?\d)")
_LANDLINE = re.compile(
    rf"{_NOT_INSIDE}(?:\+?86-?)?0(?:10|2\d|[3-9]\d\d)-?[1-9]\d{{6,7}}(?:-\d{{1,5}})?(?!\d)"
    rf"|{_NOT_INSIDE}[48]00-?\d{{3}}-?\d{{4}}(?!\d)"
    rf"|{_NOT_INSIDE}[48]00-\d{{4}}-\d{{3}}(?!\d)"
)
# Seven or eight digits may be a telephone number as well as a count: what follows decides.
_LOCAL = re.compile(
    r"(?<![\d.\-])[1-9]\d{6,7}(?![\d.%~]|[多余几+]|[元人个吨辆台件册只票字次户亩名度米]|公|平方|立方|千|万|亿|美|欧|英)"
)


def spell_telephone_numbers(text: str) -> str:
    """Mobile numbers, landlines with or without area code, service numbers."""
    text = _MOBILE.sub(lambda match: spell_digits(re.sub(r"\D", "", match[0]), telephone=True), text)
    return _LANDLINE.sub(_spell_groups, text)


def spell_local_numbers(text: str) -> str:
    """Numbers of seven or eight digits that nothing marks as a count."""
    return _LOCAL.sub(_spell_groups, text)


def _spell_groups(match: re.Match[str]) -> str:
    groups = match[0].removeprefix("+").split("-")
    return "，".join(spell_digits(group, telephone=True) for group in groups)
