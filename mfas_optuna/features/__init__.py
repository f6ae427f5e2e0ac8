"""Pooled features of every tapped layer: extracted once, cached on disk, memory-mapped."""
