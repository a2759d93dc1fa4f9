"""Checkpoints of a rank: what is in one, how it is copied, written, kept and read again."""
