"""Measured correspondences, and the data of the explorer."""
