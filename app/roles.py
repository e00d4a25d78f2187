"""Roles for an operator: which target serves each, changing one in ``.env``, and taking the change back."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from app import env_file
from app.settings import ConfigError, Settings, load, parse_chain, read_env_file
from app.settings.fields import ROLE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_OTHER_NAMES = {"MODEL_FAST": ("AI_MODEL_FAST",), "MODEL_ACCURATE": ("AI_MODEL_ACCURATE",)}
_STEPS = 100
"""So many changes can be taken back."""


class RolesError(Exception):
    """A change was not made; the message says why, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Role:
    """One role as the configuration has it.

    Attributes:
        variable: the variable that sets it.
        chain: its targets in order, with their weights; empty where it is unset.
        in_force: the chain that calls go by; another one where parity has set the role back.
        serves: the target that calls go to now, or None.
        unusable: the reason for each backend of the chain in force that is not usable.
        shadowed: whether the process environment sets it, so that editing the file does not change it.
    """

    role: str
    variable: str
    chain: tuple[str, ...]
    in_force: tuple[str, ...]
    serves: str | None
    unusable: dict[str, str]
    shadowed: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One variable's change; None stands for: not set in the file."""

    variable: str
    before: str | None
    after: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return asdict(self)


def roles(settings: Settings, in_force: Settings | None = None) -> Iterator[Role]:
    """Yield every role there is.

    Args:
        settings: what environment and file say.
        in_force: the same with the roles that parity has set back; None where there is nothing of the kind.
    """
    names = dict.fromkeys([*(name.removeprefix("model_") for name in ROLE_FIELDS), *settings.chains])
    for role in names:
        chain = (in_force or settings).chains.get(role, ())
        problems = {each.target.backend: settings.backend_configs[each.target.backend].problem for each in chain}
        usable = (str(each.target) for each in chain if problems[each.target.backend] is None)
        variable = _variable(role)
        yield Role(
            role=role,
            variable=variable,
            chain=tuple(map(str, settings.chains.get(role, ()))),
            in_force=tuple(map(str, chain)),
            serves=next(usable, None),
            unusable={backend: problem for backend, problem in problems.items() if problem is not None},
            shadowed=_shadow(variable) is not None,
        )


def as_table(found: Iterable[Role]) -> str:
    """Return the roles as text, one a line."""
    found = list(found)
    margin = " " * (max((len(each.role) for each in found), default=0) + 2)
    return "\n".join(line for each in found for line in _lines(each, margin))


def _lines(role: Role, margin: str) -> Iterator[str]:
    serves = role.serves or ("not set" if not role.chain else "nobody: " + "; ".join(role.unusable.values()))
    yield f"{role.role:<{len(margin)}}{serves}"
    yield f"{margin}{role.variable}={','.join(role.chain)}"
    if role.in_force != role.chain:
        yield f"{margin}parity has set it back: calls go by {','.join(role.in_force)} until somebody runs"
        yield f"{margin}sluice parity rearm {role.role}; sluice parity tells why"
    if role.shadowed:
        yield f"{margin}the environment sets {_shadow(role.variable)}: editing the file does not change it"


def as_json(found: Iterable[Role]) -> list[dict[str, Any]]:
    """Return the roles as JSON values."""
    return [asdict(each) for each in found]


def change(path: Path, assignments: Iterable[str]) -> list[Change]:
    """Set roles in a ``.env`` file, all of them or none.

    Args:
        path: the file; made where it is missing.
        assignments: ``ANALYSIS=backend/model`` each; an empty value takes the variable out, which leaves the default.

    Returns:
        What changed.

    Raises:
        RolesError: it cannot be done; the message says why.
        ConfigError: the configuration would not be usable.
    """
    with env_file.only_one(path):
        wanted = dict(_assignment(text, path) for text in assignments)
        if not wanted:
            raise RolesError("say what to set, e.g. ANALYSIS=openrouter/qwen/qwen-2.5-72b-instruct")
        steps = _history(path)
        changes = _apply(path, wanted)
        if changes:
            _remember(path, [*steps, {"at": datetime.now(UTC).isoformat(), "changes": [c.as_json() for c in changes]}])
            _write(path, wanted, steps)
        return changes


def undo(path: Path) -> list[Change]:
    """Take the newest change back that has not been taken back yet.

    Raises:
        RolesError: there is none, or it cannot be done.
        ConfigError: the configuration would not be usable.
    """
    with env_file.only_one(path):
        steps = _history(path)
        if not steps:
            raise RolesError(f"there is nothing to undo: {_history_file(path)} holds no change")
        wanted = {each["variable"]: each["before"] for each in steps[-1]["changes"]}
        for variable in wanted:
            _refuse_shadowed(variable, path)
        changes = _apply(path, wanted)
        _remember(path, steps[:-1])
        _write(path, wanted, steps)
        return changes


def newest(path: Path) -> dict[str, Any] | None:
    """Return the change that ``undo`` would take back, ``{"at", "changes"}``, or None.

    Raises:
        RolesError: the history is damaged.
    """
    steps = _history(path)
    return steps[-1] if steps else None


# -- names -------------------------------------------------------------------------------------------------------------


def _variable(role: str) -> str:
    name = role.replace("-", "_").upper()
    return f"MODEL_{name}" if f"model_{role}" in ROLE_FIELDS else f"ROLES__{name}"


def _assignment(text: str, path: Path) -> tuple[str, str | None]:
    """Read ``NAME=value``.

    Raises:
        RolesError: there is no such role, or the environment shadows it.
    """
    name, equals, value = text.partition("=")
    if not text.isprintable():  # a line break would write a second variable
        raise RolesError(f"{text!r} is not one printable line")
    if not equals:
        raise RolesError(f"{text!r} sets nothing: write ROLE=backend/model-id")
    variable = _spelled(_known_variable(name.strip(), path), path)
    _refuse_shadowed(variable, path)
    return variable, value.strip() or None


def _known_variable(name: str, path: Path) -> str:
    upper = name.upper().replace("-", "_")
    if upper.startswith("ROLES__") and len(upper) > len("ROLES__"):
        return upper
    role = upper.removeprefix("AI_").removeprefix("MODEL_").lower()
    own = [each for each in _file_variables(path) if each.startswith("ROLES__")]
    if f"model_{role}" in ROLE_FIELDS:
        return f"MODEL_{role.upper()}"
    if f"ROLES__{role.upper()}" in own:
        return f"ROLES__{role.upper()}"
    known = ", ".join([*(each.removeprefix("model_").upper() for each in ROLE_FIELDS), *own])
    raise RolesError(f"there is no role {name!r}; the roles are {known}; ROLES__{upper}=… makes a new one")


def _file_variables(path: Path) -> set[str]:
    return {name.upper() for name in read_env_file(path)}


def _spelled(variable: str, path: Path) -> str:
    """Return the other name of a variable where the file has that and not the usual one."""
    there = _file_variables(path)
    others = [other for other in _OTHER_NAMES.get(variable, ()) if other in there]
    return others[0] if others and variable not in there else variable


def _shadow(variable: str) -> str | None:
    """Return the name in the process environment that sets a variable, or None."""
    usual = next((name for name, others in _OTHER_NAMES.items() if variable in others), variable)
    names = {usual, *_OTHER_NAMES.get(usual, ())}
    return next((name for name, value in os.environ.items() if name.upper() in names and value), None)


def _refuse_shadowed(variable: str, path: Path) -> None:
    shadow = _shadow(variable)
    if shadow is not None:
        raise RolesError(
            f"the environment sets {shadow}={os.environ[shadow]}, which wins over {path}: unset it there first"
        )


# -- the file ----------------------------------------------------------------------------------------------------------


def _apply(path: Path, wanted: Mapping[str, str | None]) -> list[Change]:
    """Try the new configuration as a whole; return what would change."""
    before = {name.upper(): value for name, value in read_env_file(path).items()}
    _try(env_file.edited(_read(path), wanted), wanted)
    found = [Change(name, before.get(name) or None, value) for name, value in wanted.items()]
    return [each for each in found if each.before != each.after]


def _try(text: str, wanted: Mapping[str, str | None]) -> None:
    """Load a text as if it were the file.

    Raises:
        ConfigError: it is no usable configuration.
        RolesError: it is one, but the roles in it are not what was wanted.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as directory:
        trial = Path(directory) / ".env"
        trial.touch(0o600)
        trial.write_bytes(text.encode())
        settings = load(trial)
    for variable, value in wanted.items():
        role = variable.removeprefix("AI_").removeprefix("MODEL_").removeprefix("ROLES__").lower().replace("_", "-")
        if value is not None and settings.chains.get(role) != parse_chain(value):
            raise RolesError(f"{variable}={value} would not take effect: something else sets the role {role}")


def _read(path: Path) -> str:
    try:
        return env_file.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error


def _write(path: Path, wanted: Mapping[str, str | None], steps: list[dict[str, Any]]) -> None:
    """Edit the file; where that fails, the history is as it was."""
    try:
        env_file.write(path, env_file.edited(_read(path), wanted))
    except OSError as error:
        _remember(path, steps)
        raise RolesError(f"{path} cannot be written: {error.strerror}") from error


# -- the history -------------------------------------------------------------------------------------------------------


def _history_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _history(path: Path) -> list[dict[str, Any]]:
    """Return the changes that can be taken back, oldest first.

    Raises:
        RolesError: the history is damaged.
    """
    file = _history_file(path)
    try:
        steps = orjson.loads(file.read_bytes() or b"[]")
        for step in steps:
            for each in step["changes"]:
                Change(**each)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RolesError(f"{file} cannot be read ({error}): move it away to begin a new history") from error
    found: list[dict[str, Any]] = steps
    return found


def _remember(path: Path, steps: list[dict[str, Any]]) -> None:
    file = _history_file(path)
    text = orjson.dumps(steps[-_STEPS:], option=orjson.OPT_INDENT_2).decode() + "\n"
    try:
        env_file.write(file, text)
    except OSError as error:
        raise RolesError(f"{file} cannot be written ({error.strerror}), so nothing was changed") from error
