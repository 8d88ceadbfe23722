"""English text normalisation: everything that is not a word becomes words, everything unspeakable goes.

Rules, their order and their readings follow GPT-SoVITS (GPT_SoVITS/text/en_normalization/expend.py and the
normaliser in english.py). Where the reference drops or misreads what was written (`;` and `:`, 120km/h, 16:9,
an e-mail address, 3.5kg, 7:45 PM ...) this one says it; tests/text/test_english.py lists those cases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from gpt_sovits_mlx.text.english import numbers
from gpt_sovits_mlx.text.markup import OVERRIDE_CLASS, is_override

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

_UNITS = {
    "m": ("meter", "meters"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "m/s": ("meter per second", "meters per second"),
    "mi": ("mile", "miles"),
    "ft": ("feet", "feet"),
    "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "h": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "s": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "°C": ("degree celsius", "degrees celsius"),
    "°F": ("degree fahrenheit", "degrees fahrenheit"),
}
# After a space one letter is a letter, and "min", "mi" and "oz" may be words.
_UNITS_AFTER_SPACE = [u for u in _UNITS if len(u) > 1 and u not in ("mi", "min", "ms", "ft")]
_CURRENCIES: dict[str, tuple[tuple[str, str], tuple[str, str] | None]] = {
    "$": (("dollar", "dollars"), ("cent", "cents")),
    "£": (("pound", "pounds"), ("penny", "pence")),
    "€": (("euro", "euros"), ("cent", "cents")),
    "¥": (("yen", "yen"), None),
}
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion"}
_OPERATORS = {"+": "plus", "-": "minus", "−": "minus", "×": "times", "*": "times", "÷": "divided by"}
_OPERATORS |= {"=": "equals"}
_ADDRESS_MARKS = {".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "&": "and", "+": "plus"}
_ADDRESS_MARKS |= {"?": "question mark", "=": "equals", ":": "colon", "#": "hash", "%": "percent", "~": "tilde"}
# Digraphs and barred letters have no decomposition, so stripping accents would lose them.
_LETTERS = str.maketrans(
    {"œ": "oe", "Œ": "Oe", "æ": "ae", "Æ": "Ae", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)
_MARKS = str.maketrans(
    {"，": ",", "；": ",", ";": ",", "、": ",", "。": ".", "！": "!", "？": "?", "：": ":", "…": "."}
)


def _alternatives(names: list[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _number(numeral: str) -> str:
    return numbers.decimal(numeral) if "." in numeral else numbers.cardinal(numeral)


def _address(match: re.Match[str]) -> str:
    """An e-mail or web address, spoken mark by mark; the scheme goes unsaid."""
    address = re.sub(r"^https?://", "", match[0]).rstrip("/")
    return " ".join(re.sub(r"[^A-Za-z0-9]", lambda m: f" {_ADDRESS_MARKS.get(m[0], '')} ", address).split())


def _list_ordinal(match: re.Match[str]) -> str:
    return f"{' ' if match.start() else ''}{numbers.ordinal(match[1])}, "


def _clock(match: re.Match[str]) -> str:
    hours, minutes, seconds, meridiem = match.groups()
    period = f"{meridiem[0].lower()}.m." if meridiem else None
    said = numbers.clock(int(hours), int(minutes), period)
    if seconds:
        unit = "second" if int(seconds) == 1 else "seconds"
        said += f" and {numbers.cardinal(str(int(seconds)))} {unit}"
    return said


def _date(match: re.Match[str]) -> str:
    """Month first as in America, unless that cannot be."""
    first, second = int(match[1]), int(match[2])
    month, day = (first, second) if first <= 12 else (second, first)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0].replace("/", " ")
    return numbers.calendar_date(month, day, match[3])


def _measure(match: re.Match[str]) -> str:
    return f"{match[1]} {_UNITS[match[2]][match[1] != '1']}"


def _money(match: re.Match[str]) -> str:
    unit, subunit = _CURRENCIES[match["symbol"]]
    amount, scale = match["amount"], match["scale"] or match["glued"]
    if scale:
        return f"{_number(amount)} {_SCALES.get(scale.lower(), scale)} {unit[1]}"
    return numbers.money(amount, unit, subunit)


def _vulgar_fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[2]).partition("⁄")
    if not bottom:
        return match[0]
    said = numbers.fraction(top, bottom)
    return f"{match[1]} and {'a' + said[3:] if top == '1' else said}" if match[1] else said


def _operator(match: re.Match[str]) -> str:
    return f" {_OPERATORS[match[1]]} "


def _number_word(match: re.Match[str]) -> str:
    """A numeral in words, set off by a space from letters that touch it: "A12" -> "A twelve"."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    said = _number(match[0])
    return f"{' ' if _touches(before) else ''}{said}{' ' if _touches(after) else ''}"


def _touches(char: str) -> bool:
    return char.isalpha() or (char != "" and is_override(char))


def _fraction(match: re.Match[str]) -> str:
    idiom = {"24/7": "twenty-four seven", "9/11": "nine eleven"}.get(match[0])
    return idiom or numbers.fraction(match[1], match[2])


_AMOUNT = r"(?P<amount>\d+(?:\.\d+)?)"
_SCALE = r"(?:(?:\s?(?P<scale>thousand|million|billion|trillion)|(?P<glued>[kK]|[mM]n?|bn|[bB]))\b)?"
_TLD = r"(?:com|org|net|edu|gov|io|ai|cn|dev|app|uk|jp|de|fr|info|tv)"
_FLAGS = re.ASCII

ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?:https?://|www\.)[!#-;=?-~]*[\w/]"
    rf"|\b[\w-]+(?:\.[\w-]+)*\.{_TLD}\b(?:/[\w./-]*\w)?",
    _FLAGS,
)
"""An e-mail address, a web address or a bare domain."""

# Applied in this order; each rule sees what those before it left.
_RULES: tuple[_Rule, ...] = (
    # Addresses first: their dots, colons and digits mean nothing else.
    (ADDRESS, _address),
    (re.compile(r"(?<=[A-Za-z])[’ʼ](?=[A-Za-z])"), lambda _: "'"),
    # "1. Mix. 2. Bake." counts; "He scored 10. Then ..." ends a sentence.
    (re.compile(r"(?:^|(?<=[.!?,:]) )(\d+)\. +(?=\S)", _FLAGS), _list_ordinal),
    (re.compile(r"(?:(\d+) ?)?([¼-¾⅐-⅞])"), _vulgar_fraction),
    # Arithmetic wants numbers or single letters on both sides: "he came - and went" is no subtraction.
    (re.compile(r"(?<=\d) *([+×÷=*]) *(?=-?\.?\d)", _FLAGS), _operator),
    (re.compile(r"(?:(?<=\d)|(?<=(?<![\w'])[A-Za-z])) +([+×÷=*]) +(?=-?\.?\d|[A-Za-z](?![\w']))"), _operator),
    (re.compile(r"(?:(?<=\d)|(?<=(?<![\w'])[B-HJ-Zb-hj-z])) +([-−]) +(?=-?\.?\d|[A-Za-z](?![\w']))"), _operator),
    (re.compile(r"(?<![^\s(\[])[-−](?=[$£€¥]?\.?\d)", _FLAGS), lambda _: "negative "),
    (re.compile(r"(?<![\d,])\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,])", _FLAGS), lambda m: m[0].replace(",", "")),
    (
        re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?!\d)(?:\s*([AaPp])\.?[Mm]\b\.?)?", _FLAGS),
        _clock,
    ),
    (re.compile(r"\b(\d{1,2}) *([AaPp])[Mm]\b", _FLAGS), lambda m: f"{m[1]} {m[2].upper()} M"),
    (re.compile(r"(?<=\d):(?=\d)", _FLAGS), lambda _: " to "),
    (re.compile(r"\b(1\d\d0|20\d0)s\b|(?<=\bthe )([2-9]0)s\b", _FLAGS), lambda m: numbers.decade(m[1] or m[2])),
    (re.compile(rf"(?P<symbol>[$£€¥]) ?{_AMOUNT}{_SCALE}", _FLAGS), _money),
    (re.compile(rf"{_AMOUNT}{_SCALE} ?(?P<symbol>[$£€¥])", _FLAGS), _money),
    (re.compile(rf"\b(\d+(?:\.\d+)?)({_alternatives(list(_UNITS))})(?!\w)", _FLAGS), _measure),
    (re.compile(rf"\b(\d+(?:\.\d+)?) ({_alternatives(_UNITS_AFTER_SPACE)})(?!\w)", _FLAGS), _measure),
    (re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", _FLAGS), _date),
    (re.compile(r"(?<![\d/])(\d+)/(\d+)(?![\d/])", _FLAGS), _fraction),
    (re.compile(r"(\d+)(?:st|nd|rd|th)\b", _FLAGS), lambda m: numbers.ordinal(m[1])),
    (re.compile(r"(?<=\d)[–—](?=\d)"), lambda _: " to "),
    (re.compile(r"\d+(?:\.\d+)*|(?<![\w.])\.\d+", _FLAGS), _number_word),
)

_SYMBOLS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=\s)@(?=\s)"), " at "),
    (re.compile("%"), " percent"),
    (re.compile("&"), " and "),
    (re.compile(r"\+"), " plus "),
    (re.compile(r"(?<=\w) *= *(?=\w)"), " equals "),
    (re.compile("°"), " degrees"),
    (re.compile("²"), " squared"),
    (re.compile("³"), " cubed"),
    # A dash between words is a pause; ":" is one too, now that times and ratios are words.
    (re.compile(r"\s+-+\s+|\s*(?:[–—]+|--+)\s*|:"), ", "),
)
# In a、b、c the a is a letter, not an article.
_LISTED_A = re.compile(r"(?<![A-Za-z])a(?=、)|(?<=、)a(?![A-Za-z])")
_KEPT = rf"A-Za-z{OVERRIDE_CLASS}"
_FOREIGN = re.compile(rf"[^ {_KEPT}'.,?!-]+")
_BETWEEN_WORDS = re.compile(rf"(?<=[{_KEPT}])[^ {_KEPT}'.,?!-]+(?=[{_KEPT}])")
_ID_EST, _EXEMPLI = re.compile(r"\bi\.e\.", re.IGNORECASE), re.compile(r"\be\.g\.", re.IGNORECASE)
_INNER_CAPITAL = re.compile(r"(?<!^)(?<!\s)([A-Z])")
_DETACHED = re.compile(r"\s+([,.!?]+)\s*")
_DASH_AFTER_SPACE = re.compile(r"(?<=\s)-+")
_REPEATED = re.compile(r"([!?,.-])[!?,.-]+")


def normalize(text: str) -> str:
    """Text of letters, spaces and `'.,?!-` (and override characters, see markup.py) that reads as `text` does.

    The result is empty when nothing in the text can be spoken.
    """
    text = re.sub(r"\s", " ", _LISTED_A.sub("A", text).translate(_MARKS))
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    for pattern, words in _SYMBOLS:
        text = pattern.sub(words, text)
    decomposed = unicodedata.normalize("NFD", text.translate(_LETTERS))
    text = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
    text = _FOREIGN.sub("", _BETWEEN_WORDS.sub(" ", text))
    text = _EXEMPLI.sub("for example", _ID_EST.sub("that is", text))
    text = _INNER_CAPITAL.sub(r" \1", text)
    return _tidy(text)


def _tidy(text: str) -> str:
    """One space, one punctuation mark at a time, and each mark at the word that it follows."""
    text = _DASH_AFTER_SPACE.sub("", _DETACHED.sub(r"\1 ", text))
    return re.sub(" {2,}", " ", _REPEATED.sub(r"\1", text))
