"""Settings: `tizhuang.toml` in the working directory, overridden by `TIZHUANG_<SECTION>__<NAME>`, then by options.

Every setting has a default that is safe on a laptop: loopback addresses, embedded databases, no credentials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as NotJson

from core.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mqtt(_Section):
    """The broker that devices speak to."""

    url: str = Field(default="", description="mqtt://[user:password@]host[:1883], or mqtts:// with TLS (8883)")
    prefix: str = Field(default="", description="levels that the broker puts before tizhuang/v1, like p/07/")
    client_id: str = Field(default="tizhuang-ingest", description="names the persistent session of the ingest worker")
    ca_file: Path | None = Field(default=None, description="certificate authority for mqtts://; empty: the system's")

    @field_validator("url")
    @classmethod
    def _broker_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.port == 0):
            raise ValueError("must look like mqtt://host:1883 or mqtts://host:8883")
        return url

    @field_validator("prefix")
    @classmethod
    def _whole_levels(cls, prefix: str) -> str:
        return prefix if not prefix or prefix.endswith("/") else prefix + "/"


class Influx(_Section):
    """The production series store. An empty url means the embedded DuckDB file."""

    url: str = Field(
        default="", description="http[s]://[user:password@]host[:8086], any version from 1.6; empty: DuckDB"
    )
    token: SecretStr = Field(default=SecretStr(""), description="access token (2.x, 3)")
    org: str = Field(default="tizhuang", description="organisation (2.x)")
    bucket: str = Field(
        default="tizhuang",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,50}$",
        description="bucket or database of the raw data; roll-ups go to <bucket>_1m and <bucket>_1h",
    )

    @field_validator("url")
    @classmethod
    def _server_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0):
            raise ValueError("must look like http://host:8086")
        return url.rstrip("/")


class Series(_Section):
    """How long measurements are kept. Shorter ones are rolled up into longer ones first."""

    raw_days: int = Field(default=30, ge=1, description="days that every sample is kept")
    minute_days: int = Field(default=365, ge=1, description="days that 1-minute roll-ups are kept")
    hour_days: int = Field(default=3650, ge=1, description="days that 1-hour roll-ups and device events are kept")


class Spool(_Section):
    """Where messages wait on disk while the series store takes no data: DIR/spool."""

    limit_mb: int = Field(default=1024, ge=1, description="size at which we stop acknowledging, MB; the broker waits")


class Database(_Section):
    """Records: sites, devices, incidents, tickets."""

    url: str = Field(default="", description="SQLAlchemy address; empty: SQLite in the data folder")


class Http(_Section):
    """The API and the pages. There is no login yet, so the default is loopback only."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65_535, description="0: any free one")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="host names that browsers may use for us besides localhost and `host`"
    )


class Data(_Section):
    """Where embedded databases live."""

    dir: Path = Field(default=Path("data"), description="folder of the embedded databases and of run.json")


class Alerts(_Section):
    """The rules in force."""

    rules: Path = Field(
        default=Path(__file__).parent.parent / "deploy" / "rules",
        description="folder of rule files; empty: the default rules",
    )


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        env_prefix="TIZHUANG_",
        env_nested_delimiter="__",
        toml_file="tizhuang.toml",
        extra="forbid",
        frozen=True,
    )

    mqtt: Mqtt = Mqtt()
    influx: Influx = Influx()
    series: Series = Series()
    spool: Spool = Spool()
    database: Database = Database()
    http: Http = Http()
    data: Data = Data()
    alerts: Alerts = Alerts()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(**sections: dict[str, Any]) -> Settings:
    """The settings in force; `sections` are command line options, values of None left out. Raises SettingsError."""
    given = {
        name: {key: value for key, value in section.items() if value is not None} for name, section in sections.items()
    }
    try:
        return Settings(**{name: section for name, section in given.items() if section})  # type: ignore[arg-type]
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors())
        raise SettingsError(f"setting {told}") from None
    except NotJson as error:
        raise SettingsError(f'environment: {error}; lists and whole sections are JSON, like ["a", "b"]') from None
    except ValueError as error:  # a tizhuang.toml that is not TOML
        raise SettingsError(f"tizhuang.toml: {error}") from None
