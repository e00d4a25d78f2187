"""Batches: many calls in a file, worked off while nobody waits for them."""
