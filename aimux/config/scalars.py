"""The small languages of configuration values: durations, sizes, listen addresses, networks. Each parses and prints."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import core_schema

from aimux.config.problems import wrong

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"

# --- durations -------------------------------------------------------------------------------------------------------

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")


def _nanos(number: str) -> int:
    whole, _, fraction = number.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def parse_duration(value: object) -> float:
    """Seconds from `90`, `"90"`, `"90s"`, `"1m30s"`, `"1.5m"`, `"500ms"`, `"1d"`."""
    remedy = "write it like 60s, 10m, 1h30m, 500ms, 1d, or as a number of seconds"
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if not isinstance(value, str):
        raise wrong("is not a duration", remedy)
    text = value.strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = _DURATION_PART.findall(text) if _DURATION.fullmatch(text) else []
    if not parts or len({unit for _, unit in parts}) < len(parts):
        raise wrong(f"{value!r} is not a duration", remedy)
    # Summed as integers and divided once: 1s1ms is then the same float as 1.001.
    return sum(_nanos(number) * _MILLISECONDS[unit] for number, unit in parts) / 10**12


def format_duration(seconds: float) -> str:
    """The shortest exact form: `1h30m`, `500ms`, `0.0005s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 != seconds or seconds <= 0:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    text = ""
    for unit, size in reversed(_MILLISECONDS.items()):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            text += f"{count}{unit}"
    return text


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_NUMBER}$|^{_DURATION.pattern}$"},
                {"type": "number", "minimum": 0},
            ]
        }
    ),
]
"""Seconds as a float."""

# --- sizes -----------------------------------------------------------------------------------------------------------

_BYTES = {"": 1, "b": 1}
for _power, _prefix in enumerate("kmgt", 1):
    _BYTES |= {f"{_prefix}ib": 1024**_power, _prefix: 1024**_power, f"{_prefix}b": 1000**_power}
_SIZE = re.compile(rf"({_NUMBER}) ?((?:[KMGT](?:i?B)?)?|B)", re.IGNORECASE)


def parse_size(value: object) -> int:
    """Bytes from `1048576`, `"64MiB"` or `"64M"` (powers of 1024), `"64MB"` (powers of 1000)."""
    remedy = "write it like 64MiB, 512KiB, 1GiB, or as a number of bytes"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise wrong("is not a size", remedy)
    if not (match := _SIZE.fullmatch(value.strip())):
        raise wrong(f"{value!r} is not a size", remedy)
    size = Decimal(match[1]) * _BYTES[match[2].lower()]  # as a float 4.1MB is not whole
    if size != size.to_integral_value():
        raise wrong(f"{value!r} is not a whole number of bytes", remedy)
    return int(size)


def format_size(size: int) -> str:
    """The shortest exact form in powers of 1024: `64MiB`, `1000B`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": rf"^{_NUMBER} ?([KkMmGgTt]([Ii]?[Bb])?|[Bb])?$"},
                {"type": "integer", "minimum": 0},
            ]
        }
    ),
]
"""Bytes."""

# --- where to listen -------------------------------------------------------------------------------------------------

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_MAX_UNIX_PATH = 107
"""Bytes that fit into Linux's `sun_path` with its final NUL."""


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. `host` "" means every address of the machine; `unix_path` excludes host and port."""

    host: str = ""
    port: int = 0
    unix_path: str | None = None

    @classmethod
    def parse(cls, value: object) -> Listen:
        """From `:8080`, `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080` or `unix:/path`."""
        if isinstance(value, Listen):
            return value
        remedy = "write it like 127.0.0.1:8080, :8080 (every address), [::1]:8080 or unix:/run/aimux.sock"
        if not isinstance(value, str):
            raise wrong("is not an address to listen on", remedy)
        text = value.strip()
        if text.startswith("unix:"):
            return cls._unix(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
            raise wrong(f"{value!r} has no port", remedy)
        if int(port) > 65535:
            raise wrong(f"port {port} is above 65535", remedy)
        return cls(_host(host, value, remedy), int(port))

    @classmethod
    def _unix(cls, path: str) -> Listen:
        if not path.startswith("/") or "\0" in path or path.endswith("/"):
            raise wrong(
                f"'unix:{path}' is not the absolute path of a socket", "write it like unix:/run/aimux/aimux.sock"
            )
        if len(path.encode()) > _MAX_UNIX_PATH:
            raise wrong(f"the path of the socket is longer than {_MAX_UNIX_PATH} bytes", "choose a shorter one")
        return cls(unix_path=path)

    @property
    def local(self) -> bool:
        """Only this machine can connect."""
        if self.unix_path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


def _host(host: str, value: str, remedy: str) -> str:
    if host in {"", "*"}:
        return ""
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise wrong(f"{value!r} holds no valid IPv6 address", remedy) from None
        return host[1:-1]
    if ":" in host:
        raise wrong(f"{value!r} holds an IPv6 address without brackets", "write it like [::1]:8080")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise wrong(f"{value!r} holds no valid IPv4 address", remedy) from None
    elif not _HOST.fullmatch(host):
        raise wrong(f"{value!r} holds no valid host name", remedy)
    return host


# --- networks --------------------------------------------------------------------------------------------------------

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(value: object) -> IPNetwork | Literal["unix"]:
    """From `10.0.0.0/8`, a single address, or `unix` for whoever comes over a unix socket."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    remedy = "write it like 10.0.0.0/8, 192.168.1.5 or fd00::/8, or unix for a unix socket"
    if not isinstance(value, str):
        raise wrong("is not a network", remedy)
    if value.strip() == "unix":
        return "unix"
    try:
        return ipaddress.ip_network(value.strip())
    except ValueError as error:
        why = "has bits set behind its prefix" if "host bits" in str(error) else "is not a network"
        raise wrong(f"{value!r} {why}", remedy) from None


Network = Annotated[
    IPNetwork | Literal["unix"],
    PlainValidator(parse_network, json_schema_input_type=str),
    PlainSerializer(str, return_type=str, when_used="json"),
]

# --- names of headers ------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+\*?")


def parse_header_pattern(value: object) -> str:
    """`x-name`, or `x-beginning-*`, in lower case."""
    if not isinstance(value, str) or not _HEADER.fullmatch(value.strip()):
        raise wrong("is not the name of a header", "write it like x-name, or x-beginning-* for all that begin so")
    return value.strip().lower()


HeaderPattern = Annotated[str, PlainValidator(parse_header_pattern, json_schema_input_type=str)]
