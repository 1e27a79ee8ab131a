"""Corpus to token store: sources, clean, split, augment, tokenize, store, order."""
