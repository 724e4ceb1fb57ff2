"""Matching and searching images of your own."""
