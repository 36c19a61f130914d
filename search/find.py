"""`find_plan`: a search from Python, for any call of a supported pipeline."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.pipelines.calls import fit_call
from ajour.search.engine import Search
from ajour.search.files import beside, write_results
from ajour.search.results import missed
from ajour.search.settings import (
    CALIBRATION,
    VERIFICATION,
    Settings,
    Target,
    prompts_of,
    split,
)
from ajour.search.setup import takes_embeddings
from ajour.search.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.plan import Plan
    from ajour.search.setup import PipelineCall
    from ajour.search.timing.costs import Costs

logger = logging.getLogger("ajour")


def find_plan(
    pipe: Any,
    call: PipelineCall | None = None,
    target: Target | str = "psnr 30",
    *,
    prompts: Sequence[str] | None = None,
    folder: str | Path | None = None,
    calibrate: int | None = None,
    verify: int | None = None,
    seed: int = 0,
    bands: int | None = None,
    reuse: bool = True,
    backend: str | None = None,
    costs: Costs | None = None,
    model: str | None = None,
) -> Plan:
    """Search a plan for a pipeline as you run it, measured on its device.

    Args:
        pipe: a supported pipeline, not enabled.
        call: how you run it. Either the arguments of its call, such as `image`, `strength`,
            `negative_prompt` or `num_inference_steps`; or, for anything else, a function that gets
            the pipeline, a prompt and a generator, runs the pipeline once with them and returns its
            pictures, see `ajour.pipelines.pictures.pictures`.
        target: `"psnr 33"`, `"speedup 2"` or `"density 0.3"`: the fastest plan of a quality
            against dense attention in dB, the best plan of a speed, or the best plan that keeps a
            share of the attention.
        prompts: to measure and verify on. If left out, the `prompt` of the arguments, or built-in
            prompts if there is none. A single prompt is used throughout, with different seeds.
        folder: keeps finished work, so that an interrupted search goes on from there, and gets
            `plan.json` and a report. Nothing is kept if left out.
        calibrate: number of prompts to measure errors on; 2 if left out, or fewer of few prompts.
        verify: number of prompts to verify plans on; 3 if left out, or fewer of few prompts.
        seed: of the first prompt's noise; each further prompt has the next seed.
        bands: bands of steps that may get different assignments; 5 if left out, or the number of
            steps if it is less.
        reuse: whether steps may be reused.
        backend: one of `ajour.BACKENDS`; None chooses the fastest that can run.
        costs: times of an earlier search on this device; None measures them.
        model: what the plan says it is for; if left out, where the pipeline was loaded from.

    Returns:
        The plan; what was predicted and measured is in its `provenance`. If the target cannot be
        reached, it is the best plan, `provenance["target_met"]` is False, and a warning is logged.

    Raises:
        TypeError: if the pipeline cannot be searched, or does not take the call.
        ValueError: if the target or a prompt is none, there are fewer prompts or steps than were
            asked for, or the folder holds other work.
    """
    arguments: PipelineCall
    if callable(call):
        arguments, own = call, None
    else:
        arguments, own = _arguments(pipe, call or {})
    calibration, verification = _divided(own if prompts is None else prompts, calibrate, verify)
    settings = Settings(
        model=model or getattr(pipe, "name_or_path", None) or type(pipe).__name__,
        target=target if isinstance(target, Target) else parse_target(target),
        calibration=calibration,
        verification=verification,
        call=arguments,
        seed=seed,
        bands=bands,
        reuse=reuse,
        backend=backend,
        costs=costs,
    )
    with ExitStack() as undo:
        place = Path(folder or undo.enter_context(TemporaryDirectory(prefix="ajour-search-")))
        workers = undo.enter_context(Workers.connected())
        out = place / "plan.json"
        opened = workers.open(beside(out, ".search"), settings.identity(), resume=True)
        work = undo.enter_context(closing(opened))
        search = Search(pipe, settings, work, workers)
        outcome = search.run()
        if workers.first and folder is not None:
            kind, value = settings.target.kind, settings.target.value
            command = f'ajour.find_plan(pipe, call, "{kind} {value:g}")'
            write_results(outcome, search.verifier.video, out, command)
    if outcome.dense_is_best:
        logger.warning(outcome.conclusion)
    elif not outcome.met:
        logger.warning(missed(outcome))
    return outcome.plan


def parse_target(text: str) -> Target:
    """The target of a text such as `psnr 33`.

    Raises:
        ValueError: if it is none.
    """
    kind, _, value = text.strip().partition(" ")
    try:
        return Target(kind, float(value))
    except ValueError as error:
        raise ValueError(
            f'a target is a text such as "psnr 33", "speedup 2" or "density 0.3", got {text!r:.40} '
            f"({error})"
        ) from error


def _arguments(pipe: Any, call: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Arguments of a call without its prompt, and the prompt; none if a call has no prompt."""
    arguments = dict(call)
    prompt = arguments.pop("prompt", None)
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(
            f"the prompt of a call is one text, got {type(prompt).__name__}; give several as "
            "prompts=[...]"
        )
    if takes_embeddings(arguments):
        prompt = prompt or ""  # all runs have the same prompt, whatever it is
    return fit_call(pipe, arguments), None if prompt is None else (prompt,)


def _divided(
    prompts: Sequence[str] | None, calibrate: int | None, verify: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompts to calibrate on and to verify on; built-in prompts if None."""
    if isinstance(prompts, str) or (prompts is not None and not prompts):
        raise ValueError(f"prompts are a list of at least one text, got {prompts!r:.40}")
    texts = prompts_of(None, None) if prompts is None else tuple(prompts)
    if len(texts) == 1:
        return texts * (calibrate or CALIBRATION), texts * (verify or VERIFICATION)
    return split(texts, calibrate, verify)
