from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.web.static_files import FOLDER
from tests.service.web.browsing import csrf_of, signed_in

CONTENT = b"text,label\n" + b"".join(b"words %d,%d\n" % (i, i % 2) for i in range(60))


def script_headers(browser: TestClient) -> dict[str, str]:
    return {"X-CSRF-Token": csrf_of(browser), "Accept": "application/json"}


def declared(content: bytes = CONTENT) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    file = {"name": "data.csv", "size_bytes": len(content), "sha256": sha256}
    return {"kind": "dataset", "files": [file]}


def test_a_file_is_sent_by_the_sessions_cookie(browser: TestClient, http: TestClient) -> None:
    headers = script_headers(browser)
    made = browser.post("/uploads", json=declared(), headers=headers).json()
    place = f"/uploads/{made['id']}"
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    chunk = {**headers, "Content-Digest": f"sha-256=:{digest}:"}
    sent = browser.put(f"{place}/files/data.csv/chunks/0", content=CONTENT, headers=chunk)
    assert sent.status_code == 204, sent.text
    answer = browser.post(f"{place}/finalize", headers=headers)
    assert answer.status_code == 200, answer.text
    ready = answer.json()
    assert (ready["state"], ready["summary"]["num_rows"]) == ("ready", 60)
    assert http.get(f"/v1/uploads/{made['id']}").json()["state"] == "ready"


def test_faults_are_problems_that_a_script_reads(browser: TestClient) -> None:
    headers = script_headers(browser)
    answer = browser.post("/uploads", json={"kind": "dataset", "files": []}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (
        422,
        "application/problem+json",
    )
    made = browser.post("/uploads", json=declared(), headers=headers).json()
    wrong = browser.put(f"/uploads/{made['id']}/files/data.csv", content=b"x", headers=headers)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "data.csv")
    assert browser.delete(f"/uploads/{made['id']}", headers=headers).status_code == 204


def test_nothing_is_taken_without_the_sessions_token(browser: TestClient) -> None:
    made = browser.post("/uploads", json=declared(), headers=script_headers(browser)).json()
    place = f"/uploads/{made['id']}"
    for method, path in [
        ("POST", "/uploads"),
        ("PUT", f"{place}/files/data.csv"),
        ("PUT", f"{place}/files/data.csv/chunks/0"),
        ("POST", f"{place}/finalize"),
        ("DELETE", place),
    ]:
        answer = browser.request(method, path, json=declared())
        assert (answer.status_code, path) == (403, path)


def test_no_upload_of_another_tenant_is_known(
    http: TestClient, browser: TestClient, others_key: str
) -> None:
    made = browser.post("/uploads", json=declared(), headers=script_headers(browser)).json()
    theirs = signed_in(http, others_key)
    headers = script_headers(theirs)
    place = f"/uploads/{made['id']}"
    answers = [
        theirs.put(f"{place}/files/data.csv", content=CONTENT, headers=headers),
        theirs.put(f"{place}/files/data.csv/chunks/0", content=CONTENT, headers=headers),
        theirs.post(f"{place}/finalize", headers=headers),
        theirs.delete(place, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the script")
def test_the_browsers_own_sha256_is_right(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "sha256.js", tmp_path / "sha256.mjs")
    (tmp_path / "run.mjs").write_text(
        'import { Sha256 } from "./sha256.mjs";\n'
        "for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {\n"
        "  const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 7 + size) % 256);\n"
        "  const hash = new Sha256();\n"
        "  for (let at = 0; at < size; at += 37) hash.update(bytes.subarray(at, at + 37));\n"
        "  console.log(hash.hex());\n"
        "}\n"
    )
    command = ["node", "run.mjs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [
        hashlib.sha256(bytes((i * 7 + size) % 256 for i in range(size))).hexdigest()
        for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000)
    ]
    assert done.stdout.split() == expected
