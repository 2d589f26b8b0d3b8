"""Exact identities in polynomial rings, and one by symbolic integration."""
