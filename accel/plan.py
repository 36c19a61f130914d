"""Plan: which head of which layer uses which pattern, and when. A versioned JSON file."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ajour.files import check_json, read_json, write_json
from ajour.patterns import KINDS, Captured, Pattern
from ajour.plan_text import plan_text
from ajour.quoting import listed, quoted
from ajour.schedule import DENSE, REUSE, Phase, Schedule

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""Largest plan file that is read."""

RESERVED = {DENSE: "stock attention", REUSE: "reused steps"}
"""Names that no assignment can have, and what they mean in a schedule."""

MOST_PATTERNS = 1000
"""Most patterns of a plan, and most assignments."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


class PlanError(ValueError):
    """A plan cannot be used: malformed, of another version, or for another model."""


@dataclass(frozen=True)
class Plan:
    """Patterns for every head of every layer, and the schedule over the noise level.

    Args:
        model: what the plan is for: `transformer` (class name), `layers`, `heads`, `head_dim`.
        patterns: patterns by name.
        assignments: by name, layers x heads pattern names.
        schedule: phases that name assignments, or `dense`.
        provenance: where the plan came from; any JSON that `ajour.files.check_json` accepts, kept
            as it is.

    Raises:
        PlanError: if names do not resolve, shapes do not fit the model, or the provenance cannot
            be written as JSON.
    """

    model: dict[str, Any]
    patterns: dict[str, Pattern]
    assignments: dict[str, tuple[tuple[str, ...], ...]]
    schedule: Schedule
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _keys(self.model, {"transformer", "layers", "heads", "head_dim"}, set(), "model")
        transformer = self.model["transformer"]
        if not isinstance(transformer, str) or not _CLASS.fullmatch(transformer):
            raise PlanError(f"model.transformer must be a class name, got {quoted(transformer)}")
        for key in ("layers", "heads", "head_dim"):
            value = self.model[key]
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
                raise PlanError(
                    f"model.{key} must be an integer from 1 to 4096, got {quoted(value)}"
                )
        for what, entries in (("patterns", self.patterns), ("assignments", self.assignments)):
            _check_names(entries, what)
        for name, meaning in RESERVED.items():
            if name in self.assignments:
                raise PlanError(f"{name!r} is reserved for {meaning}; rename the assignment")
        for name, layers in self.assignments.items():
            _check_assignment(name, layers, self.model, self.patterns)
        for phase in self.schedule.phases:
            if phase.assignment not in (*RESERVED, *self.assignments):
                raise PlanError(
                    f"the schedule uses {quoted(phase.assignment)}, but the plan has only "
                    f"{listed([*RESERVED, *self.assignments])}"
                )
        self._check_provenance()

    def __str__(self) -> str:
        return plan_text(self)

    def layer(self, assignment: str, layer: int) -> list[Pattern]:
        """The pattern of each head of a layer under an assignment."""
        return [self.patterns[name] for name in self.assignments[assignment][layer]]

    def is_captured(self, assignment: str) -> bool:
        """Whether a head of an assignment has a captured pattern, which has to be measured."""
        names = {name for layer in self.assignments[assignment] for name in layer}
        return any(isinstance(self.patterns[name], Captured) for name in names)

    def _check_provenance(self) -> None:
        try:
            check_json(self.provenance, "provenance")
        except ValueError as error:
            raise PlanError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "format": "ajour-plan",
            "format_version": FORMAT_VERSION,
            "model": dict(self.model),
            "patterns": {name: pattern.to_dict() for name, pattern in self.patterns.items()},
            "assignments": {
                name: [list(layer) for layer in layers] for name, layers in self.assignments.items()
            },
            "schedule": [phase.to_dict() for phase in self.schedule.phases],
            "provenance": copy.deepcopy(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Build a plan from JSON.

        Raises:
            PlanError: with the rule that is broken and the value that breaks it.
        """
        required = {"format", "format_version", "model", "patterns", "assignments", "schedule"}
        _keys(data, required, {"provenance"}, "plan")
        if data["format"] != "ajour-plan":
            raise PlanError(
                f"not a plan: format must be 'ajour-plan', got {quoted(data['format'])}"
            )
        version = data["format_version"]
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise PlanError(
                f"this version reads plan format {FORMAT_VERSION}, got {quoted(version)}; "
                "install the ajour that wrote it"
            )
        for what in ("patterns", "assignments"):
            _mapping(data[what], what)
            _check_names(data[what], what)
        patterns = {name: _pattern(name, spec) for name, spec in data["patterns"].items()}
        assignments = {name: _assignment(name, rows) for name, rows in data["assignments"].items()}
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise PlanError(f"provenance must be an object, got {type(provenance).__name__}")
        return cls(
            dict(_mapping(data["model"], "model")),
            patterns,
            assignments,
            _schedule(data["schedule"]),
            provenance,
        )

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: if the file cannot be read, is larger than 16 MiB, or is not a valid plan.
        """
        try:
            return cls.from_dict(read_json(path, MAX_BYTES, "plan"))
        except PlanError as error:
            raise PlanError(f"plan {quoted(str(path))}: {error}") from error
        except ValueError as error:
            raise PlanError(str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, whole or not at all.

        Raises:
            PlanError: if the provenance was changed to what JSON cannot hold.
            OSError: if the file cannot be written.
        """
        self._check_provenance()
        write_json(path, self.to_dict())

    def check_model(self, transformer: str, layers: int, heads: int, head_dim: int) -> None:
        """Raise PlanError unless the plan was made for a model of this class and shape."""
        actual = {
            "transformer": transformer,
            "layers": layers,
            "heads": heads,
            "head_dim": head_dim,
        }
        differing = [
            f"{key} {quoted(self.model[key])} != {value!r}"
            for key, value in actual.items()
            if self.model[key] != value
        ]
        if differing:
            raise PlanError(
                f"the plan is for another model: {', '.join(differing)} (plan != model); "
                "use a plan made for this model"
            )


def _keys(data: Any, required: set[str], optional: set[str], what: str) -> None:
    """Raise PlanError unless `data` is an object with just these keys."""
    _mapping(data, what)
    missing, unknown = required - set(data), set(data) - required - optional
    if missing:
        raise PlanError(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise PlanError(f"{what} has unknown keys {listed(sorted(map(quoted, unknown)))}")


def _check_names(entries: dict[str, Any], what: str) -> None:
    """Raise PlanError unless all keys are names, and there are not too many."""
    if len(entries) > MOST_PATTERNS:
        raise PlanError(f"a plan has at most {MOST_PATTERNS} {what}, got {len(entries)}")
    for name in entries:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PlanError(
                "a name is 1 to 64 letters, digits, dots, dashes or underscores, "
                f"got {quoted(name)}"
            )


def _mapping(data: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(data, dict):
        raise PlanError(f"{what} must be an object, got {type(data).__name__}")
    return list(data.items())


def _pattern(name: str, spec: Any) -> Pattern:
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
        raise PlanError(f"pattern {name!r} must be an object with a kind, got {quoted(spec)}")
    kind = KINDS.get(spec["kind"])
    if kind is None:
        raise PlanError(
            f"pattern {name!r} has unknown kind {quoted(spec['kind'])}; "
            f"kinds are {', '.join(KINDS)}"
        )
    values = {key: value for key, value in spec.items() if key != "kind"}
    known = {f.name for f in fields(kind)}
    _keys(values, set(), known, f"pattern {name!r}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise PlanError(f"pattern {name!r}: {error}") from error


def _assignment(name: str, layers: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(layers, list) or not all(isinstance(layer, list) for layer in layers):
        raise PlanError(f"assignment {name!r} must be a list of layers, each a list of names")
    return tuple(tuple(layer) for layer in layers)


def _schedule(data: Any) -> Schedule:
    if not isinstance(data, list):
        raise PlanError(f"schedule must be a list of phases, got {type(data).__name__}")
    phases = []
    for entry in data:
        _keys(entry, {"from_noise_level", "assignment"}, {"dense_every", "slopes"}, "a phase")
        if not isinstance(entry["assignment"], str):
            raise PlanError(
                f"a phase's assignment must be a name, got {quoted(entry['assignment'])}"
            )
        slopes = entry.get("slopes")
        if "slopes" in entry and not isinstance(slopes, list):
            raise PlanError(f"a phase's slopes must be a list of numbers, got {quoted(slopes)}")
        phases.append(Phase(**entry | {"slopes": None if slopes is None else tuple(slopes)}))
    try:
        return Schedule(tuple(phases))
    except ValueError as error:
        raise PlanError(str(error)) from error


def _check_assignment(
    name: str,
    layers: tuple[tuple[str, ...], ...],
    model: dict[str, Any],
    patterns: dict[str, Pattern],
) -> None:
    """Raise PlanError unless an assignment is layers x heads of known pattern names."""
    if len(layers) != model["layers"]:
        raise PlanError(
            f"assignment {name!r} must have {model['layers']} layers, got {len(layers)}"
        )
    for index, heads in enumerate(layers):
        if len(heads) != model["heads"]:
            raise PlanError(
                f"assignment {name!r}, layer {index}, must have {model['heads']} heads, "
                f"got {len(heads)}"
            )
        for head in heads:
            if not isinstance(head, str) or head not in patterns:
                raise PlanError(
                    f"assignment {name!r}, layer {index}, uses unknown pattern {quoted(head)}; "
                    f"the plan has {listed(patterns) or 'none'}"
                )
