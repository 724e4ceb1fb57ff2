"""Matching and searching your own images."""
