"""Rebuild the demo voice from nothing but packages: text, synthetic speech, training, export."""
