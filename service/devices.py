"""Devices, as their agents report them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.db import epoch_now
from service.models import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceInfo:
    """What a step needs to know of a device."""

    id: str
    name: str
    identity: dict[str, Any]


def register_device(session: Session, name: str, identity: Mapping[str, Any]) -> Device:
    """Create the device of this name, or note that it is alive and what it is now."""
    device = session.scalars(select(Device).where(Device.name == name)).one_or_none()
    if device is None:
        device = Device(name=name)
        session.add(device)
    device.identity = dict(identity)
    device.fingerprint = identity_fingerprint(identity)
    device.last_seen_at = epoch_now()
    session.flush()
    session.refresh(device)
    return device


def identity_fingerprint(identity: Mapping[str, Any]) -> str:
    """Equal for equal identities: a new runtime or CPU makes old measurements foreign."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def touch_device(session: Session, device_id: str) -> Device | None:
    """Note that the device's agent was heard; None when there is no such device."""
    device = session.get(Device, device_id)
    if device is not None:
        device.last_seen_at = epoch_now()
        session.flush()
    return device


def find_device(session: Session, name_or_id: str) -> Device | None:
    query = select(Device).where(or_(Device.id == name_or_id, Device.name == name_or_id))
    found = {device.id: device for device in session.scalars(query)}
    return found.get(name_or_id) or next(iter(found.values()), None)


def list_devices(session: Session) -> list[Device]:
    return list(session.scalars(select(Device).order_by(Device.name)))
