"""The clients: all that a server offers, by name."""

from __future__ import annotations

from service.client import (
    artifact_calls,
    device_calls,
    job_calls,
    server_calls,
    upload_calls,
    webhook_calls,
)
from service.client.awaiting import AwaitingConnection
from service.client.blocking import BlockingConnection
from service.client.methods import Followed, Listed, Sent


class Api:
    """What either client can do."""

    submit = Sent(job_calls.submit)
    dry_run = Sent(job_calls.dry_run)
    job = Sent(job_calls.job)
    jobs = Sent(job_calls.jobs)
    iter_jobs = Listed(job_calls.pages)
    change = Sent(job_calls.change)
    cancel = Sent(job_calls.cancel)
    pause = Sent(job_calls.pause)
    resume = Sent(job_calls.resume)
    retry = Sent(job_calls.retry)
    extend = Sent(job_calls.extend)
    delete = Sent(job_calls.delete_job)
    wait = Sent(job_calls.wait)
    stream = Followed(job_calls.stream)
    events = Sent(job_calls.events)
    events_page = Sent(job_calls.events_page)
    evaluations = Sent(job_calls.evaluations)
    report = Sent(job_calls.report)
    report_html = Sent(job_calls.report_html)

    artifacts = Sent(artifact_calls.artifacts)
    download = Sent(artifact_calls.download)
    download_artifact = Sent(artifact_calls.download_artifact)
    download_blob = Sent(artifact_calls.download_blob)
    upload_folder = Sent(upload_calls.upload_folder)
    upload_file = Sent(upload_calls.upload_file)
    upload_from_hub = Sent(upload_calls.upload_from_hub)

    device = Sent(device_calls.device)
    devices = Sent(device_calls.devices)
    iter_devices = Listed(device_calls.device_pages)
    rename_device = Sent(device_calls.rename_device)
    retire_device = Sent(device_calls.retire_device)
    revive_device = Sent(device_calls.revive_device)
    measure = Sent(device_calls.measure)
    measurement_job = Sent(device_calls.measurement_job)
    measurements = Sent(device_calls.measurements)
    iter_measurements = Listed(device_calls.measurements)
    measuring_sessions = Sent(device_calls.measuring_sessions)
    iter_measuring_sessions = Listed(device_calls.measuring_sessions)
    predictor = Sent(device_calls.predictor)
    predictors = Sent(device_calls.predictors)
    iter_predictors = Listed(device_calls.predictors)
    predict = Sent(device_calls.predict)

    onboard = Sent(device_calls.onboard)
    onboarding = Sent(device_calls.onboarding)
    onboardings = Sent(device_calls.onboardings)
    iter_onboardings = Listed(device_calls.onboardings)
    cancel_onboarding = Sent(device_calls.cancel_onboarding)
    onboarding_stream = Followed(device_calls.onboarding_stream)
    onboarding_events_page = Sent(device_calls.onboarding_events_page)

    register_device = Sent(device_calls.register_device)
    claim_measurement_job = Sent(device_calls.claim_measurement_job)
    renew_measurement_job = Sent(device_calls.renew_measurement_job)
    report_result = Sent(device_calls.report_result)
    report_failure = Sent(device_calls.report_failure)

    create_webhook = Sent(webhook_calls.create_webhook)
    webhook = Sent(webhook_calls.webhook)
    webhooks = Sent(webhook_calls.webhooks)
    change_webhook = Sent(webhook_calls.change_webhook)
    delete_webhook = Sent(webhook_calls.delete_webhook)
    rotate_webhook_secret = Sent(webhook_calls.rotate_webhook_secret)
    send_test_webhook = Sent(webhook_calls.send_test_webhook)
    webhook_deliveries = Sent(webhook_calls.webhook_deliveries)
    iter_webhook_deliveries = Listed(webhook_calls.webhook_deliveries)
    redeliver = Sent(webhook_calls.redeliver)

    create_key = Sent(server_calls.create_key)
    api_keys = Sent(server_calls.api_keys)
    revoke_key = Sent(server_calls.revoke_key)
    audit_log = Sent(server_calls.audit_log)
    iter_audit_log = Listed(server_calls.audit_log)
    signing_keys = Sent(server_calls.signing_keys)
    server_info = Sent(server_calls.server_info)
    is_ready = Sent(server_calls.is_ready)
    readiness = Sent(server_calls.readiness)


class Client(Api, BlockingConnection):
    """For programs that wait for each answer."""


class AsyncClient(Api, AwaitingConnection):
    """The same for programs with an event loop: each answer is awaited."""
