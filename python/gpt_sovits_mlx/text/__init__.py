"""Text front end: text -> phones, phone ids and word2ph. Imports no MLX; dictionaries load on first use.

frontend = TextFrontend()
for utterance in frontend.utterances("我住在{重庆|chong2 qing4}，I love it."):
    print(utterance.phones)
"""

from gpt_sovits_mlx.text.frontend import LANGUAGES, Segment, TextFrontend, Utterance, phones_json
from gpt_sovits_mlx.text.split import SPLIT_METHODS

__all__ = ["LANGUAGES", "SPLIT_METHODS", "Segment", "TextFrontend", "Utterance", "phones_json"]
