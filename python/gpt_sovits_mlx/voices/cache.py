"""What references yield, kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import VoiceError
from ..files import file_sha256, written_whole
from ..runtime import user_cache_dir
from ..text import Utterance
from .format import FORMAT, Reference, VoiceFolder
from .voice import Conditioning


class ConditioningCache:
    """What one reference yields, on disk: in the voice's folder, or in the user's cache where that is not writable.

    An entry is valid for the key that it was made with: the contents of the recordings, the transcript, the
    weights and the encoders, and how a lexicon has the transcript read, where that is not how it is read without.

    Attributes:
        key: SHA-256 of these facts.
        paths: where the entry may lie, by precedence.
    """

    def __init__(self, folder: VoiceFolder, reference: Reference):
        facts = {
            "format": FORMAT,
            "version": folder.version,
            "recordings": [file_sha256(path) for path in reference.files()],
            "text": reference.text,
            "language": reference.language,
            "sovits": file_sha256(folder.sovits_file),
            "encoders": dict(sorted(folder.encoders.items())),
        }
        self._settle(facts)
        if reference == folder.reference:
            self.paths.insert(0, folder.cache_file)

    def read_as(self, transcript: Utterance) -> ConditioningCache:
        """The same for a transcript that a lexicon has read otherwise.

        It lies in the user's cache: the voice's folder keeps what holds without a lexicon.
        """
        made = ConditioningCache.__new__(ConditioningCache)
        made._settle({**self._facts, "transcript": transcript.to_json()})
        return made

    def _settle(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self.key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.paths = [user_cache_dir() / "references" / f"{self.key}.safetensors"]

    def load(self) -> Conditioning | None:
        """The entry, or `None` where there is none for this key.

        Raises:
            VoiceError: one is damaged.
        """
        for path in self.paths:
            if path.is_file() and (entry := self._entry(path)):
                return entry
        return None

    def _entry(self, path: Path) -> Conditioning | None:
        """The entry of a file, or `None` where that was made with another key."""
        try:
            with safe_open(path, framework="np") as file:
                if (file.metadata() or {}).get("key") != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tokens, phones = (tuple(tensors[name].tolist()) for name in ("tokens", "phones"))
            style = mx.array(tensors["style"])
        except (OSError, SafetensorError, KeyError) as error:
            raise VoiceError(f"{path} is damaged ({error}): delete it, it will be made again") from None
        bert = mx.array(tensors["bert"]) if "bert" in tensors else None
        mx.eval(style, bert)
        return Conditioning(tokens, phones, bert, style)

    def save(self, conditioning: Conditioning) -> None:
        """Write the entry where it can be written; a folder that is read-only is no error."""
        tensors = {
            "tokens": np.array(conditioning.tokens, np.int32),
            "phones": np.array(conditioning.phones, np.int32),
            "style": np.array(conditioning.style),
        }
        if conditioning.bert is not None:
            tensors["bert"] = np.array(conditioning.bert)
        for path in self.paths:
            if path.parent.exists() and not os.access(path.parent, os.W_OK):
                continue
            try:
                with written_whole(path) as temporary:
                    save_file(tensors, temporary, {"key": self.key, "format": str(FORMAT)})
                return
            except OSError:
                continue
