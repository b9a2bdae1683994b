"""Makes a Config from a file and the environment, or reports everything that is wrong with them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aimux.config import renamed as renamed_settings
from aimux.config.advice import advice
from aimux.config.document import Document, read_document
from aimux.config.environment import FILE_VARIABLE, overlay
from aimux.config.explain import explain
from aimux.config.files import open_to_others, read_text, working_folder
from aimux.config.models import Config
from aimux.config.origin import Origin
from aimux.config.problems import MASK, ConfigError, Problem, dotted
from aimux.config.references import UNRESOLVED, References
from aimux.config.sections import Loading

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from aimux.config.problems import Where
    from aimux.plugin import Provider


def find_config(explicit: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The configuration file: the one asked for, else `$AIMUX_CONFIG`, else the first that exists, else none."""
    if explicit is not None:
        return cwd / explicit
    if named := environ.get(FILE_VARIABLE):
        return cwd / named
    candidates = [cwd / "config.yaml"]
    if folder := environ.get("XDG_CONFIG_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.config"):
        candidates.append(cwd / folder / "aimux" / "config.yaml")
    return next((path for path in candidates if path.is_file()), None)


def load_config(path: Path | None, *, environ: Mapping[str, str], providers: Mapping[str, type[Provider]]) -> Config:
    """Read, resolve and validate; without a path, the environment alone. Raises ConfigError with every problem."""
    return _Load(_read(path), path, environ, providers).config()


def load_leniently(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    providers: Mapping[str, type[Provider]],
    fields: Collection[str] | None,
) -> Config:
    """The same for a command outside of the service, which may not have all of its secrets: tokens and keys that can't
    be read here are unknown (`Token.known`) or not there. `fields`: these alone (None: all), the others have their
    defaults.

    Raises ConfigError for whatever else is wrong with them.
    """
    return _Load(_read(path), path, environ, providers, lenient=True, fields=fields).config()


def parse_config(
    data: Mapping[str, Any], *, environ: Mapping[str, str], providers: Mapping[str, type[Provider]]
) -> Config:
    """The same for a configuration that is data already. Raises ConfigError."""
    return _Load(Document(dict(data)), None, environ, providers).config()


def admin_token(
    path: Path | None, *, environ: Mapping[str, str], providers: Mapping[str, type[Provider]]
) -> str | None:
    """`admin.token` itself, for a command that has to show it to the server; None if only its hash is given.

    A Config does not keep it. Call it with a configuration that `load_config` has taken.
    """
    return _Load(_read(path), path, environ, providers).admin_token()


def check_form(path: Path | None, *, environ: Mapping[str, str], providers: Mapping[str, type[Provider]]) -> None:
    """Check a file without reading the secrets it refers to, for a place that has none (a build). Raises
    ConfigError."""
    _Load(_read(path), path, environ, providers, read=False).validate()


def _read(path: Path | None) -> Document:
    if path is None:
        return Document()
    try:
        return read_document(read_text(path))
    except OSError as error:
        raise ConfigError([Problem("", None, str(error), "check the path given by --config or AIMUX_CONFIG")]) from None


class _Load:
    """One load: the document under the environment's values, its references resolved, then pydantic's verdict."""

    def __init__(
        self,
        document: Document,
        path: Path | None,
        environ: Mapping[str, str],
        providers: Mapping[str, type[Provider]],
        *,
        read: bool = True,
        lenient: bool = False,
        fields: Collection[str] | None = None,
    ) -> None:
        self._path = path
        self._fields = fields
        self._document, renamed = renamed_settings.in_document(document)
        environ, variables = renamed_settings.in_environment(environ)
        folder = path.parent if path else working_folder(environ)
        self._overlaid = overlay(self._document, environ, Config, providers)
        self._references = References(environ, folder, read=read)
        self._warnings: list[Problem] = []
        self._loading = Loading(environ, providers, folder, read, self._warn, lenient=lenient)
        for place, old, new in renamed + variables:
            self._warn(place, f"is still called {old}", f"write {new}")

    def config(self) -> Config:
        config = self.validate()
        assert config is not None  # with everything read, nothing stays unresolved
        for path, message, remedy in advice(config, self._loading.providers):
            self._warn(path, message, remedy)
        if self._path and self._holds_secrets() and open_to_others(self._path, whosever=True):
            remedy = f"chmod 600 {self._path}, or move them out: token_file, ${{cred:NAME}}"
            self._warn((), "holds secrets and can be read by every user of this machine", remedy)
        origin = Origin(self._path, self._document.lines, self._overlaid.sources)
        return config.with_warnings(tuple(self._warnings), origin)

    def admin_token(self) -> str | None:
        admin = self._references.resolve(self._overlaid.data.get("admin"))
        token = admin.get("token") if isinstance(admin, dict) else None
        return token if isinstance(token, str) else None

    def validate(self) -> Config | None:
        """The Config; None where references were not to be read and nothing else is wrong. Raises ConfigError."""
        problems = [self._problem(f.path, f.message, f.remedy, line=f.line) for f in self._document.faults]
        if problems and not self._document.data:
            raise ConfigError(problems)  # unreadable: the rest would be noise
        data = self._overlaid.data
        if self._fields is not None:
            data = {name: value for name, value in data.items() if name in self._fields}
        data = self._references.resolve(data)
        for path, failed in self._references.failures.items():
            if self._loading.lenient and path[0] == "providers" and (path[-1] == "api_key" or "headers" in path):
                _leave_out(data, path)
            elif not (self._loading.lenient and path[-1] == "token"):
                problems.append(self._problem(path, failed.message, failed.remedy))
        for misplaced in self._overlaid.misplaced if self._fields is None else ():
            # `${env:AIMUX_ALICE}` makes that name a secret of the user's own.
            if misplaced.variable not in self._references.names:
                problems.append(Problem(misplaced.variable, None, misplaced.message, misplaced.remedy, "environment"))
        config = None
        try:
            config = Config.model_validate(data, context=self._loading)
        except ValidationError as error:
            problems += self._explained(error)
        if problems:
            raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0))
        return config

    def _explained(self, error: ValidationError) -> Iterator[Problem]:
        for detail in error.errors(include_url=False):
            # A value that a reference left open fits nothing. The reference's own failure says more, except for an
            # unknown key.
            if detail["input"] is not UNRESOLVED or detail["type"] == "extra_forbidden":
                yield self._problem(*explain(detail, Config))

    def _warn(self, path: Where, message: str, remedy: str) -> None:
        self._warnings.append(self._problem(path, message, remedy))

    def _problem(self, path: Where, message: str, remedy: str, *, line: int | None = None) -> Problem:
        """`line`: in the file, if known. Otherwise that of the closest place above `path`, or its variable."""
        for value in self._references.values:
            if len(value) >= 4:
                message = message.replace(value, MASK)
        for length in range(len(path), 0, -1):
            if line is not None:
                break
            if variable := self._overlaid.sources.get(path[:length]):
                return Problem(dotted(path), None, message, remedy, variable)
            line = self._document.lines.get(path[:length])
        return Problem(dotted(path), line, message, remedy, str(self._path or ""))

    def _holds_secrets(self) -> bool:
        """Whether a token or key stands in the file itself."""

        def secrets(value: Any) -> Iterator[Any]:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(item, dict | list):
                    yield from secrets(item)
                elif key in {"token", "api_key", "url", "encryption_key", "old_encryption_keys"}:
                    yield item

        return any(isinstance(item, str) and "${" not in item for item in secrets(self._document.data))


def _leave_out(data: Any, path: Where) -> None:
    """Remove one value from the resolved data, which is a copy."""
    for part in path[:-1]:
        data = data[part]
    del data[path[-1]]
