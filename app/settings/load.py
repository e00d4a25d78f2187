"""Reading the settings: one message per mistake, and Live, which swaps them whole when they change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from app.call import Choice, Target
from app.settings.derive import BUILT_IN, LOOPBACK
from app.settings.fields import ROLE_FIELDS, BackendOptions, ConfigError, Settings, mask_url, parse_chain, read_env_file
from app.settings.parity import ParityOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OPTIONS: dict[str, tuple[str, type[BaseModel]]] = {
    "backends": ("backend", BackendOptions),
    "parity": ("role's parity", ParityOptions),
}


def load(env_file: Path) -> Settings:
    """Build Settings from the environment and a ``.env`` file.

    Raises:
        ConfigError: with one message per mistake.
    """
    read_env_file(env_file)  # a file that is no text is a mistake like any other
    try:
        settings = Settings(_env_file=env_file if env_file.exists() else None)
    except ValidationError as error:
        raise ConfigError([_explain(each) for each in error.errors()]) from error
    mistakes = _mistakes(settings)
    if mistakes:
        raise ConfigError(mistakes)
    return settings


def _explain(error: Any) -> str:
    name = "__".join(str(part).replace("-", "_") for part in error["loc"]).upper()
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    secret = any(word in name for word in ("KEY", "TOKEN", "SECRET"))
    shown = "" if secret or isinstance(error["input"], dict) else f" (it is {mask_url(str(error['input']))[:80]!r})"
    if error["type"] == "extra_forbidden":
        what, options = _OPTIONS[error["loc"][0]]
        return f"{name}: there is no such option; the options of a {what} are {', '.join(options.model_fields).upper()}"
    return f"{name}: {message}{shown}"


def _mistakes(settings: Settings) -> list[str]:
    """Check what concerns more than one setting."""
    found = _chain_mistakes(settings) + _address_mistakes(settings)
    found += [
        f"BACKENDS__{name.replace('-', '_').upper()}__BASE_URL: is missing; set it to its OpenAI-compatible address"
        for name, options in settings.backends.items()
        if name not in BUILT_IN and not options.base_url
    ]
    found += [
        f"ON_WEAK_BY_ROLE: {role!r}: {what!r} is not one of polish, escalate, serve"
        for role, what in settings.on_weak_by_role.items()
        if what not in {"polish", "escalate", "serve"}
    ]
    if "{port}" not in settings.runloop_tunnel_url or "{key}" not in settings.runloop_tunnel_url:
        found.append("RUNLOOP_TUNNEL_URL: must hold both {port} and {key}")
    if settings.tier_small_max > settings.tier_medium_max:
        found.append("TIER_SMALL_MAX: is larger than TIER_MEDIUM_MAX, so that no call is of medium complexity")
    asks = settings.api_keys or settings.keys_required
    if settings.host not in LOOPBACK and not asks and not settings.allow_anonymous:
        found.append(
            f"API_KEYS: is empty while HOST={settings.host} opens the proxy, and your provider keys, to the network; "
            "set API_KEYS, or KEYS_REQUIRED=true and make keys with 'sluice keys create', or ALLOW_ANONYMOUS=true if "
            "that is meant"
        )
    return found or _twice_told_keys(settings)


def _address_mistakes(settings: Settings) -> list[str]:
    names = [f"{name.replace('-', '_')}_base_url" for name in BUILT_IN]
    addresses = {name.upper(): getattr(settings, name, "") for name in names}
    addresses |= {
        f"BACKENDS__{name.replace('-', '_').upper()}__BASE_URL": options.base_url or ""
        for name, options in settings.backends.items()
    }
    told = [*addresses.items(), *(("MLX_ENGINES", url) for url in settings.mlx_engines)]
    return [
        f"{variable}: is not an address; write it like http://127.0.0.1:8080/v1 (it is {mask_url(url)[:80]!r})"
        for variable, url in told
        if url and not _is_address(url)
    ]


def _twice_told_keys(settings: Settings) -> list[str]:
    """Find addresses with user and password beside a key: a request has one Authorization header."""
    return [
        f"{name.replace('-', '_').upper()}: its address has a user and it has an API key as well; leave one of them out"
        for name, config in settings.backend_configs.items()
        if config.api_key and any("@" in urlsplit(url).netloc for url in (config.base_url, *config.engines))
    ]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _chain_mistakes(settings: Settings) -> list[str]:
    chains = {name.upper(): getattr(settings, name) for name in ROLE_FIELDS}
    chains |= {f"ROLES__{name.replace('-', '_').upper()}": text for name, text in settings.roles.items()}
    found = ["ROLES__AUTO: auto is not a role; choose another name"] * ("auto" in settings.roles)
    for name, text in chains.items():
        try:
            choices = parse_chain(text)
        except ValueError as error:
            found.append(f"{name}: {error}")
            continue
        found += [f"{name}: {_unknown_backend(c.target)}" for c in choices if c.target.backend not in _known(settings)]
    return found + _alias_mistakes(settings) + _parity_mistakes(settings)


def _parity_mistakes(settings: Settings) -> list[str]:
    roles = {*(name.removeprefix("model_") for name in ROLE_FIELDS), *settings.roles}
    found = []
    for role, options in settings.parity.items():
        variable = f"PARITY__{role.replace('-', '_').upper()}__REFERENCE"
        if role not in roles:
            found.append(f"{variable}: there is no role {role!r}; the roles are {', '.join(sorted(roles))}")
            continue
        try:
            target = Target.parse(options.reference)
        except ValueError as error:
            found.append(f"{variable}: {error}")
            continue
        found += [f"{variable}: {_unknown_backend(target)}"] * (target.backend not in _known(settings))
    return found


def _alias_mistakes(settings: Settings) -> list[str]:
    roles = {name.removeprefix("model_") for name in ROLE_FIELDS if getattr(settings, name)}
    roles |= {"auto", "judge", *settings.roles}
    found = []
    for alias, meaning in settings.model_aliases.items():
        if meaning.lower() in roles:
            continue
        try:
            choices = parse_chain(meaning) or (Choice.parse(meaning),)
        except ValueError as error:
            found.append(f"MODEL_ALIASES: {alias!r}: {error}, or a role: {', '.join(sorted(roles))}")
            continue
        found += [
            f"MODEL_ALIASES: {alias!r}: {_unknown_backend(c.target)}"
            for c in choices
            if c.target.backend not in _known(settings)
        ]
    return found


def _known(settings: Settings) -> set[str]:
    return {*BUILT_IN, *settings.backends}


def _unknown_backend(target: Target) -> str:
    variable = target.backend.replace("-", "_").upper()
    return f"there is no backend {target.backend!r} for {target}; name it with BACKENDS__{variable}__BASE_URL"


def shadowed(env_file: Path) -> list[str]:
    """Name the settings that the process environment keeps from being changed by editing the ``.env`` file."""
    in_file = read_env_file(env_file)
    return sorted(name for name in in_file if os.environ.get(name) and os.environ[name] != in_file[name])


class Live:
    """The settings in force. ``current`` is swapped whole; a call takes one snapshot by reading it once.

    Attributes:
        loaded: what environment and file say.
        overlay: what comes on top of it while Sluice runs: roles that parity has set back.
    """

    def __init__(self, env_file: Path) -> None:
        """Load the settings.

        Raises:
            ConfigError: they cannot be used.
        """
        self.env_file = env_file
        self.loaded = self.current = load(env_file)
        self.overlay: Callable[[Settings], Settings] = lambda loaded: loaded
        self.error: str | None = None
        self.generation = 0
        self._pending = self._stamp()
        self._applied: tuple[int, int, int] | None = self._pending

    def reload(self) -> bool:
        """Read everything anew; return whether it is in force. A bad configuration changes nothing but ``error``."""
        return self._put_in_force(self._read())

    def reload_soon(self) -> None:
        """Have ``poll`` reload once the file rests, changed or not: somebody else says that it is to be read."""
        self._applied = None

    def _read(self) -> Settings | ConfigError:
        try:
            return load(self.env_file)
        except ConfigError as error:
            return error

    def _put_in_force(self, read: Settings | ConfigError) -> bool:
        if isinstance(read, ConfigError):
            self.error = str(read)
            return False
        self.error = None
        self.loaded = read
        self.lay_over()
        return True

    def lay_over(self) -> None:
        """Put in force what was loaded, with what ``overlay`` makes of it."""
        fresh = self.overlay(self.loaded)
        if fresh != self.current:
            self.current = fresh
            self.generation += 1

    def poll(self) -> bool | None:
        """Reload once the file has changed and then rested for one poll, so that half a write is never read.

        Returns:
            None where nothing changed, else what ``reload`` returned.
        """
        stamp = self._stamp()
        rested, self._pending = stamp == self._pending, stamp
        if not rested or stamp == self._applied:
            return None
        read = self._read()
        if self._stamp() != stamp:  # the next writer has begun: what was read may be half of it
            return None
        self._applied = stamp
        return self._put_in_force(read)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self.env_file.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)
