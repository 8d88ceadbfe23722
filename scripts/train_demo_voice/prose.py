"""Prose to read aloud, in English, Mandarin and Japanese, out of Debian packages that hold free texts.

Fortunes (quotations, verse, jokes), the stories and dialogues of Battle for Wesnoth (its English and their
translations) and handbooks. The packages need no installing: unpack them below one folder, `root`
(`dpkg -x PACKAGE.deb ROOT`): fortunes, fortunes-min, fortunes-zh, wesnoth-1.16-data and the campaigns
wesnoth-1.16-*, debian-handbook, debian-reference-ja, debian-reference-zh-cn, developers-reference-ja.
"""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator
from pathlib import Path

LANGUAGES = ("en", "zh", "ja")
_CHINESE_FORTUNES = ("chinese.u8", "tang300.u8", "song100.u8")
_LOCALES = {"zh": ("zh_CN", "zh-CN"), "ja": ("ja", "ja-JP")}
_ENDS = {"en": r"(?<=[.?!])[\"”')]*\s+", "zh": r"(?<=[。？！])[”」』]*", "ja": r"(?<=[。？！])[」』]*"}
# What may stand in a sentence that is read aloud; numbers come from `templates`, read as the front end reads them.
_ALLOWED = {
    "en": re.compile(r"[A-Za-z' ,.?!-]+"),
    "zh": re.compile(r"[一-龥，。？！]+"),
    "ja": re.compile(r"[ぁ-んァ-ヶー一-龥々、。？！]+"),
}
_LENGTHS = {"en": (1, 340), "zh": (2, 110), "ja": (2, 130)}  # characters of one sentence


def catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """(original, translation) of each message of a gettext `.mo` file, little-endian as all of Debian's are."""
    data = path.read_bytes()
    magic, _, count, originals, translations = struct.unpack_from("<5I", data)
    if magic != 0x950412DE:
        raise ValueError(f"{path} is no little-endian .mo file")
    for i in range(count):
        size, start = struct.unpack_from("<2I", data, originals + 8 * i)
        length, place = struct.unpack_from("<2I", data, translations + 8 * i)
        original = data[start : start + size].decode("utf-8", "ignore").split("\0")[0]
        yield original.rpartition("\4")[2], data[place : place + length].decode("utf-8", "ignore").split("\0")[0]


def paragraphs(language: str, root: Path) -> Iterator[str]:
    """Every paragraph that `root` holds in a language, as it stands there."""
    yield from _fortunes(language, root)
    yield from _messages(language, root)
    if language != "en":
        yield from _handbooks(language, root)


def sentences(language: str, root: Path) -> Iterator[str]:
    """Sentences fit to be read aloud, duplicates left out; and whole dialogues of a few sentences."""
    seen: set[str] = set()
    for paragraph in paragraphs(language, root):
        found = [clean(part, language) for part in re.split(_ENDS[language], paragraph)]
        for sentence in found:
            if sentence and sentence not in seen:
                seen.add(sentence)
                yield sentence
        space = " " if language == "en" else ""
        for size in (2, 3):
            for i in range(0, len(found) - size + 1, size):
                together = found[i : i + size]
                if (
                    all(together)
                    and len(joined := space.join(together)) <= _LENGTHS[language][1]
                    and joined not in seen
                ):
                    seen.add(joined)
                    yield joined


def clean(sentence: str, language: str) -> str:
    """One sentence with the marks that a voice can show, a final mark behind; empty where it cannot be said."""
    text = re.sub(r"\s+", " " if language == "en" else "", sentence)
    if language == "en":
        text = re.sub(r"\s*(?:--|—|–|;|:)\s*", ", ", text.replace("’", "'").replace("…", ","))
        text = re.sub(r"[\"“”()\[\]*_]", "", re.sub(r"\.{2,}", ",", text))
        text = re.sub(r"\s*([.,?!])[.,?!\s]*", r"\1 ", text).strip(" ,'-")
        final, marks = ".", ".?!"
    else:
        comma = "，" if language == "zh" else "、"
        text = re.sub(r"[、；：，,;:]" if language == "zh" else r"[，；：;:]", comma, text)
        text = re.sub(r"…+|—+|─+|～", comma, text.replace("?", "？").replace("!", "！"))
        text = re.sub(r"[“”‘’「」『』《》〈〉（）()【】〔〕\[\]\"'*]", "", text)
        text = re.sub(rf"{comma}+(?=[。？！]|$)", "", re.sub(rf"{comma}+", comma, text)).lstrip("，、。？！")
        text = re.sub(r"([。？！])[。？！]+", r"\1", text)
        final, marks = "。", "。？！"
    low, high = _LENGTHS[language]
    if not low <= len(text) <= high or not _ALLOWED[language].fullmatch(text) or not re.search(r"\w", text):
        return ""
    return text if text[-1] in marks else text + final


def _fortunes(language: str, root: Path) -> Iterator[str]:
    if language == "ja":
        return
    for path in sorted((root / "usr/share/games/fortunes").glob("*.u8")):
        if (path.name in _CHINESE_FORTUNES) != (language == "zh"):
            continue
        for item in re.split(r"\n%", path.read_text(encoding="utf-8", errors="ignore")):
            text = re.sub(r"\x1b\[[0-9;]*m", "", item).replace("\t--", ". ")
            yield re.sub(r"\n[ \t]*", "" if language == "zh" else " ", text)


def _messages(language: str, root: Path) -> Iterator[str]:
    folder = root / "usr/share/games/wesnoth/1.16/locale"
    locale = _LOCALES.get(language, ("zh_CN", ""))[0]
    for path in sorted(folder.glob(f"{locale}/LC_MESSAGES/*.mo")):
        for original, translation in catalogue(path):
            text = re.sub(r"<[^>]*>", "", original if language == "en" else translation)
            if original and "$" not in text and "%" not in text:
                yield from text.split("\n")


def _handbooks(language: str, root: Path) -> Iterator[str]:
    short, long = _LOCALES[language]
    pages = [p for p in sorted((root / "usr/share").rglob("*.html")) if {long, short} & set(p.parts)]
    tag = short.lower().replace("_", "-")
    pages += sorted((root / "usr/share/debian-reference").glob(f"*.{tag}.html"))
    for path in pages:
        text = path.read_text(encoding="utf-8", errors="ignore")
        for paragraph in re.findall(r"<p\b[^>]*>(.*?)</p>", text, re.DOTALL):
            yield html.unescape(re.sub(r"<[^>]*>", "", paragraph))
