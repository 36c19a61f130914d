"""Plan: which head of which layer uses which pattern, and when. A versioned JSON file."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ajour.files import read_json
from ajour.patterns import KINDS, Captured, Pattern
from ajour.schedule import DENSE, REUSE, Phase, Schedule

FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""Largest plan file that is read."""

RESERVED = {DENSE: "stock attention", REUSE: "reused steps"}
"""Names that no assignment can have, and what they mean in a schedule."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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
        provenance: where the plan came from; free JSON, kept as it is.

    Raises:
        PlanError: if names do not resolve or shapes do not fit the model.
    """

    model: dict[str, Any]
    patterns: dict[str, Pattern]
    assignments: dict[str, tuple[tuple[str, ...], ...]]
    schedule: Schedule
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _keys(self.model, {"transformer", "layers", "heads", "head_dim"}, set(), "model")
        if not isinstance(self.model["transformer"], str):
            raise PlanError(
                f"model.transformer must be a class name, got {self.model['transformer']!r}"
            )
        for key in ("layers", "heads", "head_dim"):
            value = self.model[key]
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
                raise PlanError(f"model.{key} must be an integer from 1 to 4096, got {value!r}")
        for name in (*self.patterns, *self.assignments):
            if not _NAME.fullmatch(name):
                raise PlanError(
                    f"a name is 1 to 64 letters, digits, dots, dashes or underscores, got {name!r}"
                )
        for name, meaning in RESERVED.items():
            if name in self.assignments:
                raise PlanError(f"{name!r} is reserved for {meaning}; rename the assignment")
        for name, layers in self.assignments.items():
            _check_assignment(name, layers, self.model, self.patterns)
        for phase in self.schedule.phases:
            if phase.assignment not in (*RESERVED, *self.assignments):
                known = ", ".join([*RESERVED, *self.assignments])
                raise PlanError(
                    f"the schedule uses {phase.assignment!r}, but the plan has only {known}"
                )

    def layer(self, assignment: str, layer: int) -> list[Pattern]:
        """The pattern of each head of a layer under an assignment."""
        return [self.patterns[name] for name in self.assignments[assignment][layer]]

    def is_captured(self, assignment: str) -> bool:
        """Whether a head of an assignment has a captured pattern, which has to be measured."""
        names = {name for layer in self.assignments[assignment] for name in layer}
        return any(isinstance(self.patterns[name], Captured) for name in names)

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
            raise PlanError(f"not a plan: format must be 'ajour-plan', got {data['format']!r}")
        if data["format_version"] != FORMAT_VERSION or isinstance(data["format_version"], bool):
            raise PlanError(
                f"this version reads plan format {FORMAT_VERSION}, "
                f"got {data['format_version']!r}; install the ajour that wrote it"
            )
        patterns = {
            name: _pattern(name, spec) for name, spec in _mapping(data["patterns"], "patterns")
        }
        assignments = {
            name: _assignment(name, layers)
            for name, layers in _mapping(data["assignments"], "assignments")
        }
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
            raise PlanError(f"plan {str(path)!r}: {error}") from error
        except ValueError as error:
            raise PlanError(str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def check_model(self, transformer: str, layers: int, heads: int, head_dim: int) -> None:
        """Raise PlanError unless the plan was made for a model of this class and shape."""
        actual = {
            "transformer": transformer,
            "layers": layers,
            "heads": heads,
            "head_dim": head_dim,
        }
        differing = [
            f"{key} {self.model[key]!r} != {value!r}"
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
        raise PlanError(f"{what} has unknown keys {', '.join(sorted(map(repr, unknown)))}")


def _mapping(data: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(data, dict):
        raise PlanError(f"{what} must be an object, got {type(data).__name__}")
    return list(data.items())


def _pattern(name: str, spec: Any) -> Pattern:
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
        raise PlanError(f"pattern {name!r} must be an object with a kind, got {spec!r:.80}")
    kind = KINDS.get(spec["kind"])
    if kind is None:
        raise PlanError(
            f"pattern {name!r} has unknown kind {spec['kind']!r}; kinds are {', '.join(KINDS)}"
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
            raise PlanError(f"a phase's assignment must be a name, got {entry['assignment']!r}")
        slopes = entry.get("slopes")
        if "slopes" in entry and not isinstance(slopes, list):
            raise PlanError(f"a phase's slopes must be a list of numbers, got {slopes!r:.80}")
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
                    f"assignment {name!r}, layer {index}, uses unknown pattern {head!r}; "
                    f"the plan has {', '.join(patterns) or 'none'}"
                )
