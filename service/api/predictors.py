"""Predictors of a device over HTTP: their versions and reports, and what they say."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import DevicesReader
from service.devices import devices, predicting, predictor_store
from service.devices.device_schemas import (
    PredictedPage,
    Prediction,
    Predictor,
    PredictorDetail,
    PredictorPage,
)
from service.problems import NotFound

router = APIRouter(prefix="/v1/devices", tags=["predictors"])


@router.get("/{device_id}/predictors")
def list_all(
    device_id: str,
    caller: DevicesReader,
    key: str | None = None,
    shape_key: str | None = None,
    precision: str | None = None,
    latest: Annotated[bool, Query()] = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> PredictorPage:
    """Every version with its fit report, newest first.

    Args:
        key: a predictor key as text.
        latest: only the newest version of each key and shape.
    """
    with caller.database.read() as session:
        device = devices.get_device(session, device_id)
        found = predictor_store.list_predictors(
            session,
            device.id,
            key_text=key,
            shape_key=shape_key,
            precision=precision,
            latest=latest,
            before_id=cursor,
            limit=limit + 1,
        )
    return PredictorPage(
        items=[Predictor.model_validate(p) for p in found[:limit]],
        next_cursor=found[limit - 1].id if len(found) > limit else None,
    )


@router.get("/{device_id}/predictors/{predictor_id}")
def get(device_id: str, predictor_id: str, caller: DevicesReader) -> PredictorDetail:
    """With everything that it needs to predict, as versioned JSON."""
    with caller.database.read() as session:
        device = devices.get_device(session, device_id)
        found = predictor_store.get_predictor(session, device.id, predictor_id)
    if found is None:
        raise NotFound("predictor", predictor_id)
    return PredictorDetail.model_validate(found)


@router.post("/{device_id}/predictors:predict")
def predict(device_id: str, body: Prediction, caller: DevicesReader) -> PredictedPage:
    """Latency of networks with its 90 % interval, and which parts it comes from."""
    with caller.database.read() as session:
        device = devices.get_device(session, device_id)
        return predicting.predict(session, device, body)
