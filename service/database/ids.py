"""Identifiers: a prefix that tells what a thing is, and 80 random bits that tell which."""

from __future__ import annotations

import base64
import secrets


def new_id(prefix: str) -> str:
    """For example `job_mfzwizjomfzwizjo`: lower case, safe in URLs and file names."""
    random_part = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return f"{prefix}_{random_part}"
