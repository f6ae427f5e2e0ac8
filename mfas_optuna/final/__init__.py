"""Trains what is compared to the end, and scores what was chosen on the test split."""
