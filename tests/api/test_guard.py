"""What strangers may not do: other hosts, other origins, large bodies; and the headers that keep browsers safe."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.api import seed


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
def test_hosts_of_ours(calm: httpx.Client, host: str) -> None:
    assert calm.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", "10.0.0.1"])
def test_rebound_hosts_are_refused(calm: httpx.Client, host: str) -> None:
    answer = calm.get("/api/v1/tickets", headers={"host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unknown_host"


def test_configured_hosts(tmp_path: Path) -> None:
    http = {"host": "0.0.0.0", "allowed_hosts": ("lifts.example",)}
    with (
        seed.house(tmp_path, http=http) as made,
        seed.served(made.services) as server,
        httpx.Client(base_url=server.address) as web,
    ):
        for host, status in (("lifts.example:80", 200), ("10.0.0.1", 200), ("[fe80::1]", 200), ("evil.example", 400)):
            assert web.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://localhost:8080", "host": "localhost:8080"}, 200),
        ({"origin": "http://localhost:9090", "host": "localhost:8080"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_changes_come_from_our_own_pages(
    home: seed.House, web: httpx.Client, headers: dict[str, str], status: int
) -> None:
    ticket = home.raise_fault()
    answer = web.post(
        f"/api/v1/tickets/{ticket}/actions/accept",
        content='{"actor": "x"}',
        headers={"content-type": "application/json"} | headers,
    )
    assert answer.status_code == status
    assert home.services.tickets.get(ticket).state == ("accepted" if status == 200 else "dispatched")


def test_large_bodies_are_refused_told_or_not(home: seed.House, web: httpx.Client) -> None:
    path = f"/api/v1/tickets/{home.raise_fault()}/actions/accept"
    large = b'{"actor": "' + b"x" * 70_000 + b'"}'
    headers = {"content-type": "application/json"}
    for content in (large, iter([large[:40_000], large[40_000:]])):
        answer = web.post(path, content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("path", ["/", "/tickets", "/quarantine", "/api/v1/stats", "/nothing", "/static/app.js"])
def test_every_answer_has_the_headers(calm: httpx.Client, path: str) -> None:
    headers = calm.get(path).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers
