"""Whose something is, who may do what, and how much of it."""
