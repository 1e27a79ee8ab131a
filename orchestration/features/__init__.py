"""Vectors of a frozen encoder, kept for whole corpora."""
