"""Devices: their agents, what is measured on them, and what is learned from it."""
