"""The composition root: what the command line calls.

Nothing is imported here: a command that needs no torch, or that is given wrong input, does not wait for it.
"""
