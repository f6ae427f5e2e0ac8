"""Shared weights: which layers share, immutable blobs named by their digest, and lineage from the trials' records."""
