"""Decoding the GPT: rows that join and leave a batch, in the form that suits the back end."""
