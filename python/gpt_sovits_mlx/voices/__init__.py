"""Voices: their folders, where these lie, what a reference yields, and what is loaded of it all.

`format` reads and writes `voice.json`; `library` knows where things lie; `enrolment` makes a reference's conditioning
and `cache` keeps it on disk; `voice` is what is ready to speak; `loader` loads it, and `loaded` holds what is loaded;
`recipe` says what a new voice is made of.
"""
