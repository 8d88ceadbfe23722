"""The models: arithmetic only. No state of a request, no files, no text."""
