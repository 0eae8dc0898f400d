"""Subresources that are more than another door to the same object: scale, binding, eviction, token, finalize."""
