"""Fusion networks: equations 1 and 2 of the paper, and a linear head."""
