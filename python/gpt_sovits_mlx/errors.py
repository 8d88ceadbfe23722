"""Errors that a user can mend: each message is one line that names the input and what to do about it."""


class GPTSoVITSError(Exception):
    """Base of every error that this package raises on purpose."""


class TextError(GPTSoVITSError):
    """The text cannot be spoken: empty, no speakable character, or a language that is not supported."""


class AudioError(GPTSoVITSError):
    """A recording cannot be read or used as a reference."""


class WeightsError(GPTSoVITSError):
    """A checkpoint or a weights file is damaged, foreign, unsafe or does not fit its model."""


class VoiceError(GPTSoVITSError):
    """A voice folder is missing, incomplete or does not fit what is asked of it."""


class DependencyError(GPTSoVITSError):
    """A package, a model file or a system library is missing; the message names the command that adds it."""
