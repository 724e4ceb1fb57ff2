"""Galleries that do not fit into memory: the feature store and the shortlist search."""
