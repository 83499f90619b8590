"""Samples of other systems into HDF5 shards: one module for each thing to read, and what they write in common."""
