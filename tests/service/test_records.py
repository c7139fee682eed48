"""Devices, evaluations and predictors: small repositories."""

from __future__ import annotations

import dataclasses

from predictors.key import PredictorKey, Quantity
from service.database.db import Database
from service.devices import predictor_store
from service.devices.devices import find_device, list_devices, register_device, touch_device
from service.jobs import evaluations
from service.jobs.evaluations import Evaluation
from tests.service.helpers import create_device, create_job
from tests.service.measuring import IDENTITY

EVALUATION = Evaluation(
    source="search",
    generation=1,
    index_in_generation=0,
    fingerprint="abc",
    fidelity="600",
    subnet={"layers": [0, 1]},
    metrics={"quality": 0.8, "latency_ms": 1.5},
    genotype={"num_layers": 2},
    state={"rank": 0},
)


def test_a_device_registers_again_under_its_name(database: Database) -> None:
    first = create_device(database)
    with database.write() as session:
        second = register_device(session, "this-cpu", IDENTITY | {"cpu_model": "new"})
    assert second.id == first.id
    assert second.fingerprint != first.fingerprint
    assert second.last_seen_at >= first.last_seen_at


def test_a_device_is_found_by_name_and_by_id(database: Database) -> None:
    device = create_device(database)
    with database.write() as session:
        for key in (device.id, "this-cpu"):
            found = find_device(session, key)
            assert found is not None
            assert found.id == device.id
        assert find_device(session, "toaster") is None
        assert touch_device(session, "dev_unknown") is None
        assert touch_device(session, device.id) is not None
        assert [d.name for d in list_devices(session)] == ["this-cpu"]


def test_an_evaluation_keeps_its_place_against_a_repeated_one(database: Database) -> None:
    job_id = create_job(database)
    repeated = dataclasses.replace(EVALUATION, metrics={"quality": 0.1})
    with database.write() as session:
        assert evaluations.record_evaluation(session, job_id, EVALUATION)
        assert not evaluations.record_evaluation(session, job_id, repeated)
        (found,) = evaluations.list_evaluations(session, job_id)
    assert dataclasses.replace(found, created_at=None) == EVALUATION


def test_evaluations_are_ordered_and_filtered_by_source(database: Database) -> None:
    job_id = create_job(database)
    places = [("search", 1, 0), ("search", 0, 10), ("search", 0, 2), ("random", 0, 0)]
    with database.write() as session:
        for source, generation, index in places:
            evaluation = dataclasses.replace(
                EVALUATION, source=source, generation=generation, index_in_generation=index
            )
            evaluations.record_evaluation(session, job_id, evaluation)
    with database.read() as session:
        every = evaluations.list_evaluations(session, job_id)
        random_ones = evaluations.list_evaluations(session, job_id, "random")
    assert [(e.source, e.generation, e.index_in_generation) for e in every] == sorted(places)
    assert len(random_ones) == 1


def test_quality_is_cached_by_network_and_fidelity_within_a_job(database: Database) -> None:
    job_id, other_id = create_job(database), create_job(database)
    with database.write() as session:
        evaluations.record_evaluation(session, job_id, EVALUATION)
        assert evaluations.cached_quality(session, job_id, "abc", "600") == EVALUATION.metrics
        assert evaluations.cached_quality(session, job_id, "abc", "100") is None
        assert evaluations.cached_quality(session, job_id, "xyz", "600") is None
        assert evaluations.cached_quality(session, other_id, "abc", "600") is None


def key(
    precision: str = "fp32",
    device: str = "f00d",
    threads: int = 1,
    quantity: Quantity = "latency",
) -> PredictorKey:
    return PredictorKey(
        device_fingerprint=device,
        runtime="onnxruntime",
        runtime_version="1.0",
        provider="cpu",
        precision=precision,
        threads=threads,
        phase="encode",
        quantity=quantity,
    )


def save(database: Database, device_id: str, number: int, of: PredictorKey) -> str:
    with database.write() as session:
        return predictor_store.save_predictor(
            session,
            device_id,
            key=of,
            shape_key="s1",
            payload={"n": number, "key": of.to_dict()},
            fit_report={"mape": 0.03},
        )


def test_predictors_of_a_key_and_shape_are_versions_of_each_other(database: Database) -> None:
    device = create_device(database)
    for number in (1, 2):
        newest = save(database, device.id, number, key())
    other = save(database, device.id, 3, key("int8"))
    with database.read() as session:
        found = predictor_store.find_predictor(session, device.id, key().text, "s1")
        assert found is not None
        assert (found.id, found.version, found.payload["n"]) == (newest, 2, 2)
        assert predictor_store.find_predictor(session, device.id, key().text, "s2") is None
        assert predictor_store.get_predictor(session, "dev_other", newest) is None
        listed = predictor_store.list_predictors(session, device.id, precision="int8")
        assert [(p.id, p.version) for p in listed] == [(other, 1)]
        assert len(predictor_store.list_predictors(session, device.id)) == 3


def test_sources_are_the_newest_of_other_keys_with_the_same_precision(database: Database) -> None:
    here, there = create_device(database), create_device(database, "there")
    save(database, here.id, 1, key())
    save(database, here.id, 2, key("int8"))
    for number in (3, 4):
        save(database, there.id, number, key(device="beef"))
    save(database, here.id, 5, key(threads=2))
    with database.read() as session:
        sources = predictor_store.source_payloads(session, key(), "s1")
        assert sorted(payload["n"] for payload in sources) == [4, 5]
        assert predictor_store.source_payloads(session, key(), "s2") == []


def test_energy_and_latency_are_never_mistaken_for_each_other(database: Database) -> None:
    here, there = create_device(database), create_device(database, "there")
    energy = key(quantity="energy")
    save(database, here.id, 1, key())
    save(database, here.id, 2, energy)
    save(database, there.id, 3, key(device="beef"))
    save(database, there.id, 4, key(device="beef", quantity="energy"))
    with database.read() as session:
        for of, own, source in ((key(), 1, 3), (energy, 2, 4)):
            found = predictor_store.find_predictor(session, here.id, of.text, "s1")
            assert found is not None
            assert (found.version, found.payload["n"]) == (1, own)
            assert PredictorKey.from_dict(found.payload["key"]) == of
            (payload,) = predictor_store.source_payloads(session, of, "s1")
            assert payload["n"] == source
