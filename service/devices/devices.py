"""Devices, as their agents report them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from predictors.device import Device as DeviceIdentity
from service.database.db import epoch_now
from service.database.models import Device
from service.problems import Conflict, DeviceInUse, DeviceRetired, NotFound

ONLINE_SECONDS = 60.0
"""An agent that was not heard for this long is away; it calls three times in that time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceInfo:
    """What a step needs to know of a device."""

    id: str
    name: str
    identity: dict[str, Any]


def register_device(
    session: Session, name: str, identity: Mapping[str, Any], agent_id: str | None = None
) -> Device:
    """Create the agent's device, or note that it is alive and what it is now.

    An agent that is known keeps its device, whatever that was renamed to meanwhile.

    Raises:
        InvalidInput: the identity lacks what every device has.
        DeviceInUse: another agent spoke for the device of this name a moment ago.
        DeviceRetired: nothing is measured on it any more.
    """
    fingerprint = DeviceIdentity.from_dict(dict(identity), "identity").fingerprint
    device = _device_of(session, name, agent_id)
    if device is None:
        device = Device(name=name)
        session.add(device)
    elif device.retired_at is not None:
        raise DeviceRetired(device.name)
    elif device.agent_id not in (None, agent_id) and is_online(session, device):
        raise DeviceInUse(f"another agent is connected as {name!r}; stop it, or take another name")
    device.identity = dict(identity)
    device.fingerprint = fingerprint
    device.agent_id = agent_id
    device.last_seen_at = epoch_now()
    session.flush()
    session.refresh(device)
    return device


def touch_device(session: Session, device_id: str) -> Device | None:
    """Note that the device's agent was heard; None when there is no such device."""
    device = session.get(Device, device_id)
    if device is not None:
        device.last_seen_at = epoch_now()
        session.flush()
    return device


def check_agent(session: Session, device_id: str, agent_id: str | None) -> Device:
    """The device that an agent asks for work.

    Raises:
        NotFound: there is no such device.
        DeviceInUse: another agent took the device over.
        DeviceRetired: nothing is measured on it any more.
    """
    device = session.get(Device, device_id)
    if device is None:
        raise NotFound("device", device_id)
    if device.retired_at is not None:
        raise DeviceRetired(device.name)
    if device.agent_id not in (None, agent_id):
        raise DeviceInUse(f"another agent is connected as {device.name!r} by now")
    return device


def is_online(session: Session, device: Device) -> bool:
    query = select(Device.id).where(Device.id == device.id, was_heard())
    return session.execute(query).first() is not None


def was_heard() -> ColumnElement[bool]:
    """Of a device whose agent is there."""
    return Device.last_seen_at > epoch_now() - ONLINE_SECONDS


def find_device(session: Session, name_or_id: str) -> Device | None:
    query = select(Device).where(or_(Device.id == name_or_id, Device.name == name_or_id))
    found = {device.id: device for device in session.scalars(query)}
    return found.get(name_or_id) or next(iter(found.values()), None)


def get_device(session: Session, name_or_id: str) -> Device:
    """Raises: NotFound."""
    device = find_device(session, name_or_id)
    if device is None:
        raise NotFound("device", name_or_id)
    return device


def list_devices(
    session: Session,
    *,
    with_retired: bool = True,
    after_name: str = "",
    limit: int | None = None,
) -> list[Device]:
    """By name, those after `after_name`."""
    query = select(Device).where(Device.name > after_name).order_by(Device.name).limit(limit)
    if not with_retired:
        query = query.where(Device.retired_at.is_(None))
    return list(session.scalars(query))


def rename_device(session: Session, device: Device, name: str) -> None:
    """Raises: Conflict when another device, retired ones included, has the name."""
    device.name = name
    try:
        with session.begin_nested():
            session.flush()
    except IntegrityError:
        raise Conflict(f"another device is called {name!r}") from None


def _device_of(session: Session, name: str, agent_id: str | None) -> Device | None:
    if agent_id is not None:
        query = select(Device).where(Device.agent_id == agent_id)
        known = session.scalars(query.order_by(Device.last_seen_at.desc()).limit(1)).one_or_none()
        if known is not None:
            return known
    return session.scalars(select(Device).where(Device.name == name)).one_or_none()
