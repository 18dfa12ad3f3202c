"""Speaks to an InfluxDB server of any version: which one it is, writing lines, reading InfluxQL, making databases.

Writing goes through influxdb-client to `/api/v2/write` where the server has it (1.8, 2.x, 3), else to `/write`; reading
is InfluxQL over `/query` on all of them. Every failure that may heal is StoreUnavailable; lines that the server will
never take are LinesRefused.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from core.errors import StoreUnavailable
from core.settings import Influx

CONNECT_S: Final = 2.0
ANSWER_S: Final = 10.0
"""A store that takes longer than this to take a batch counts as away."""

WORTH_PACKING: Final = 2_000
"""Bytes from which a body is compressed, on its way to another machine."""

STORED: Final = 204
"""How every version says that all lines are stored. Anything else, a proxy's friendly page among it, may mean less."""

LONGEST_WAIT_S: Final = 300.0
"""However long a server wants to be left alone."""

READ_S: Final = 60.0
"""For an answer to a question about all devices, as when the store is opened."""


class LinesRefused(Exception):
    """The server says that some of these lines are wrong; others may have been stored."""


class Version(NamedTuple):
    """Of the server, like (1, 6) or (3, 0)."""

    major: int
    minor: int
    text: str

    @property
    def has_v2_write(self) -> bool:
        return (self.major, self.minor) >= (1, 8)


class Series(NamedTuple):
    """One series of an InfluxQL answer."""

    tags: Mapping[str, str]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Rows by column name; `time` is Unix ms."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


class InfluxServer:
    """Connections to one server. Nothing is asked before it is needed: the server may be away when we start."""

    def __init__(self, settings: Influx) -> None:
        parts = urlsplit(settings.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 8086)
        self.url = f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._token = settings.token.get_secret_value()
        self._org = settings.org
        self._near = host in {"localhost", "[::1]"} or str(host).startswith("127.")
        self._version: Version | None = None
        self._client: InfluxDBClient | None = None
        self._writer: WriteService | None = None
        self._closed = False
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=8,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S),
            headers=self._credentials(),
        )

    def version(self) -> Version:
        """Asked once. Raises StoreUnavailable."""
        if self._version is None:
            answer = self._ask("GET", "/ping")
            told = answer.headers.get("X-Influxdb-Version") or _version_in(answer.data)
            if not told:
                raise StoreUnavailable(f"{self.url} (influx.url) does not answer as InfluxDB does")
            found = re.search(r"(\d+)\.(\d+)", told)
            # A server built without its version is taken for an old one: what those understand, 1.8 does too.
            self._version = Version(int(found[1]), int(found[2]), told) if found else Version(1, 0, told)
        return self._version

    def write(self, database: str, lines: Sequence[str], precision: str) -> None:
        """Returns when the lines are durable. `precision`: "ms" or "ns". Raises LinesRefused or StoreUnavailable."""
        body = "\n".join(lines).encode()
        if self.version().has_v2_write and (self._token or self.version().major != 2):
            with self._refusals():
                _, status, headers = self._v2_writer().post_write_with_http_info(
                    self._org, database, body, precision=precision, content_type="text/plain; charset=utf-8"
                )
            if status != STORED:
                raise self._failure(status, f"a write is answered with {STORED} and nothing else", headers)
            return
        query = f"?db={database}&precision={'n' if precision == 'ns' else precision}"
        headers = self._credentials()
        if not self._near and len(body) > WORTH_PACKING:
            body, headers = gzip.compress(body, 1), headers | {"Content-Encoding": "gzip"}
        answer = self._ask("POST", "/write" + query, body=body, headers=headers)
        if answer.status != STORED:
            raise self._failure(answer.status, answer.data, answer.headers)

    def query(self, database: str, statements: Sequence[str]) -> list[list[Series]]:
        """The series that each statement answers with. Raises StoreUnavailable."""
        found: list[list[Series]] = []
        self.version()
        for statement in statements:  # one at a time: together they may take longer than anybody waits
            if self._closed:
                raise StoreUnavailable("the series store is closed")
            fields = {"q": statement, "epoch": "ms"} | ({"db": database} if database else {})
            answer = self._ask("GET", "/query", fields=fields, timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S))
            if answer.status >= 300:
                raise self._as_unavailable(self._failure(answer.status, answer.data, answer.headers))
            try:
                found += self._answers(json.loads(answer.data), 1)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreUnavailable(f"{self.url} (influx.url) does not answer as InfluxDB does") from None
        return found

    def ensure(self, databases: Mapping[str, int]) -> None:
        """Makes the databases (name: days to keep) that are missing. Raises StoreUnavailable.

        Where we may not, nothing is said: the first write tells what is missing.
        """
        make = {1: self._ensure_1, 2: self._ensure_2}.get(self.version().major, self._ensure_3)
        make(databases)

    def close(self) -> None:
        self._closed = True  # a long question of another thread ends at its next statement
        if self._client is not None:
            self._client.close()
        self._pool.clear()

    def _ensure_1(self, databases: Mapping[str, int]) -> None:
        for name, days in databases.items():
            statement = f'CREATE DATABASE "{name}" WITH DURATION {days}d SHARD DURATION {_shard_days(days)}d'
            self._ask("POST", "/query", fields={"q": statement}, encode_multipart=False)

    def _ensure_2(self, databases: Mapping[str, int]) -> None:
        client = self._v2_client()
        with self._permissions():
            organisations = client.organizations_api()
            if not any(one.name == self._org for one in organisations.find_organizations()):
                organisations.create_organization(self._org)
            buckets = client.buckets_api()
            for name, days in databases.items():
                if buckets.find_bucket_by_name(name) is None:
                    rules = BucketRetentionRules(type="expire", every_seconds=days * 86_400)
                    buckets.create_bucket(bucket_name=name, retention_rules=rules, org=self._org)

    def _ensure_3(self, databases: Mapping[str, int]) -> None:
        """3 makes a missing database at its first write, but would keep its data for ever."""
        for name, days in databases.items():
            body = json.dumps({"db": name, "retention_period": f"{days}d"}).encode()
            headers = self._credentials() | {"Content-Type": "application/json"}
            self._ask("POST", "/api/v3/configure/database", body=body, headers=headers)

    def _v2_client(self) -> InfluxDBClient:
        if self._client is None:
            # 1.8 takes user and password in the place of the token.
            token = self._token or (f"{self._user}:{self._password}" if self._user else "")
            wait = (int(CONNECT_S * 1000), int(ANSWER_S * 1000))
            self._client = InfluxDBClient(self.url, token, org=self._org, timeout=wait, enable_gzip=not self._near)
        return self._client

    def _v2_writer(self) -> WriteService:
        if self._writer is None:
            self._writer = WriteService(self._v2_client().api_client)
        return self._writer

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turns what influxdb-client raises into our two errors."""
        try:
            yield
        except ApiException as error:
            raise self._failure(error.status or 0, error.body or str(error), error.headers or {}) from None
        except HTTPError as error:
            raise self._away(error) from None

    @contextmanager
    def _permissions(self) -> Iterator[None]:
        """What we may not make is somebody else's to make."""
        try:
            with self._refusals():
                yield
        except LinesRefused:
            pass
        except StoreUnavailable as error:
            if not isinstance(error, _NotAllowed):
                raise

    def _ask(self, method: str, path: str, **request: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, self.url + path, **request)
        except HTTPError as error:
            raise self._away(error) from None

    def _credentials(self) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Token {self._token}"}
        if self._user:
            return dict(urllib3.make_headers(basic_auth=f"{self._user}:{self._password}"))
        return {}

    def _away(self, error: HTTPError) -> StoreUnavailable:
        reason = str(error).rsplit(": ", 1)[-1].strip(")'\"")
        return StoreUnavailable(f"InfluxDB at {self.url} does not answer: {reason}")

    def _failure(self, status: int, body: bytes | str, headers: Mapping[str, str]) -> Exception:
        """What a bad status means: lines at fault, or a server that may heal."""
        reason = _reason(body)
        if status in {400, 413, 422} and not reason.startswith(("database not found", "timeout")):
            return LinesRefused(reason)
        if status in {401, 403}:
            return _NotAllowed(
                f"InfluxDB at {self.url} does not let us in (influx.token or user in influx.url): {reason}"
            )
        if status == 404:
            return _Missing(f"InfluxDB at {self.url}: {reason}")
        return StoreUnavailable(
            f"InfluxDB at {self.url} answers {status}: {reason}", _seconds(headers.get("Retry-After"))
        )

    def _as_unavailable(self, error: Exception) -> StoreUnavailable:
        return error if isinstance(error, StoreUnavailable) else StoreUnavailable(f"InfluxDB at {self.url}: {error}")

    def _answers(self, document: Mapping[str, Any], expected: int) -> list[list[Series]]:
        results = document.get("results", [])
        for result in results:
            if "error" in result:
                kind = _Missing if "not found" in result["error"] else StoreUnavailable
                raise kind(f"InfluxDB at {self.url}: {result['error']}")
        found: list[list[Series]] = [[] for _ in range(expected)]
        for result in results:
            found[result.get("statement_id", 0)] += [
                Series(one.get("tags", {}), one["columns"], one.get("values", ())) for one in result.get("series", ())
            ]
        return found


class _NotAllowed(StoreUnavailable):
    """The credentials do not suffice: somebody can mend that while we wait."""


class _Missing(StoreUnavailable):
    """A database is not there (any more)."""


DatabaseMissing = _Missing


def _version_in(body: bytes) -> str:
    try:
        return str(json.loads(body).get("version", ""))
    except ValueError:
        return ""


def _reason(body: bytes | str) -> str:
    """The server's own words, from any version's way to say them."""
    try:
        document = json.loads(body)
        told = document.get("error") or document.get("message") or body
    except (ValueError, AttributeError):
        told = body
    shown = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
    return shown.strip().partition("\n")[0][:500] or "no reason given"


def _seconds(retry_after: str | None) -> float | None:
    try:
        return None if retry_after is None else min(max(0.0, float(retry_after)), LONGEST_WAIT_S)
    except ValueError:
        return None


def _shard_days(days: int) -> int:
    """Files of a size that suits the time they are kept."""
    return 1 if days <= 60 else 30 if days <= 800 else 180
