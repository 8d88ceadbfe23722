"""Parts of speech for homographs: nltk's tagger where its data are installed, else rules on the neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt_sovits_mlx.text.loading import loaded_once


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_MODALS = _words(
    "will would can could shall should may might must do does did don't doesn't didn't won't wouldn't can't "
    "cannot couldn't shouldn't to let let's lets please i'll we'll you'll they'll he'll she'll it'll i'd we'd "
    "you'd they'd help"
)
_HAVE = _words("have has had having i've we've you've they've haven't hasn't hadn't")
_BE = _words(
    "is are was were be been being am isn't aren't wasn't weren't i'm you're we're they're get gets got getting "
    "feel feels felt seem seems seemed look looks looked become becomes became"
)
_SUBJECTS = _words("i you we they who people")
_SINGULAR_SUBJECTS = _words("he she it who which that this everyone everybody nobody someone")
_DETERMINERS = _words(
    "a an the this that these those my your his her its our their some any no every each another such both "
    "all few several many most more much what which whose one two three four five six seven eight nine ten "
    "first second third last next new old good great big small own same other"
)
_PREPOSITIONS = _words(
    "of in on at for with from by about into over under between through after before without against during "
    "per as like near via upon within toward towards"
)
_DEGREES = _words("very so too quite rather extremely pretty really more most less as how")
_ADVERBS = _words("not never always often also just still already ever then only usually sometimes soon")
_OBJECTS = _words(
    "me him them us it you myself yourself himself herself itself themselves ourselves the a an my your his "
    "her our their its this that these those everything something nothing anything everyone nobody someone to "
    "every each all some any no"
)
_AFTER_NOUN = _words(
    "of is was were are in on at for and or to with by from has have had will would can could rose fell that "
    "which who but as when while than"
)
_VERBS = _words("of is was were are has have had will would can could")
_PAST = _words("yesterday ago last once already earlier previously then")


def tag_words(words: tuple[str, ...]) -> list[str]:
    """A Penn tag for each word; only those of homographs mean something when rules decide."""
    tagger = _nltk_tagger()
    if tagger is not None:
        return [tag for _, tag in tagger(list(words))]
    lower = [word.lower() for word in words]
    return [_rule_tag(lower, i) for i in range(len(words))]


@loaded_once
def _nltk_tagger() -> Any:
    """nltk.pos_tag when its model lies on this machine, else None; nothing is fetched."""
    import nltk

    try:
        nltk.data.find("taggers/averaged_perceptron_tagger_eng/")
    except LookupError:
        return None
    return nltk.pos_tag


def _rule_tag(words: Sequence[str], i: int) -> str:
    word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
    before = [w for w in words[:i] if w not in _ADVERBS and not w.endswith("ly")]
    previous = before[-1] if before and before[-1][0].isalpha() else ""
    if word == "read":
        return _tag_of_read(words, previous)
    if word == "used":
        return "VBD" if following == "to" and previous not in _BE else "VBN"
    if word == "closer":
        return "NN" if previous in _DETERMINERS and not following.isalpha() else "JJR"
    if word.endswith("ed"):
        return "JJ" if previous in _DETERMINERS | _DEGREES | _BE else "VBD"
    if word.endswith("s") and not word.endswith("ss"):
        return _tag_of_s_form(previous, following)
    if word.endswith("ing"):
        return "NN" if previous in _DETERMINERS | _PREPOSITIONS and not following.isalpha() else "VBG"
    return _tag_of_base_form(previous, following)


def _tag_of_read(words: Sequence[str], previous: str) -> str:
    """The one verb whose past is spelled like its present."""
    if previous in _MODALS | _DETERMINERS or not previous:
        return "VB"
    asked = words[0] in _HAVE and words[1:2] == [previous]  # "Have you read it?"
    if previous in _HAVE | _BE or asked or not _PAST.isdisjoint(words):
        return "VBN"
    return "VBP" if previous in _SUBJECTS or previous.endswith("s") else "VBD"


def _tag_of_s_form(previous: str, following: str) -> str:
    """Plural noun, or third person of a verb ("she records it", "the vocoder uses a mel")."""
    if previous in _SINGULAR_SUBJECTS:
        return "VBZ"
    if not previous or previous in _DETERMINERS | _PREPOSITIONS | _BE | _HAVE or previous.endswith("s"):
        return "NNS"
    return "VBZ" if following in _OBJECTS | _PREPOSITIONS - {"of"} or following.endswith("ly") else "NNS"


def _tag_of_base_form(previous: str, following: str) -> str:
    if previous in _MODALS:
        return "VB"
    if previous in _HAVE:
        return "VBN" if following in _OBJECTS else "NN"
    if previous in _SUBJECTS:
        return "VBP"
    if previous in _DEGREES | _BE:
        return "JJ"
    if previous in _DETERMINERS | _PREPOSITIONS or previous.endswith("'s"):
        attributive = following.isalpha() and following not in _AFTER_NOUN | _OBJECTS
        return "JJ" if attributive else "NN"
    if following in _OBJECTS - {"to"}:
        return "VB"
    # A plural before it is its subject: "plants produce oxygen", "rates increase every year".
    plural = previous.endswith("s") and not previous.endswith("ss")
    return "VBP" if plural and following not in _VERBS else "NN"
