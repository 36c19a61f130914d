"""Plans by path or from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from ajour.files import in_words
from ajour.plan import MAX_BYTES, Plan, PlanError
from ajour.quoting import quoted, shortened

FILE = "plan.json"
"""The name of a plan's file in a repository."""

_OWNER_AND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)


def load_plan(source: str | Path, revision: str | None = None) -> Plan:
    """Read a plan.

    Args:
        source: the path of a plan file, or a repository `owner/name` on the Hub that holds a
            `plan.json`. A path that exists comes first. A `Path`, and text that begins with a dot
            or ends in `.json`, is always a path.
        revision: branch, tag or commit of the repository.

    Raises:
        PlanError: if there is no such plan, or it is malformed. A plan on the Hub that is larger
            than 16 MiB is not downloaded.
    """
    if not is_repository(source):
        return _load_file(source)
    from huggingface_hub import hf_hub_download

    repository = str(source)
    try:
        size = hf_hub_download(repository, FILE, revision=revision, dry_run=True).file_size
        if size is None or size > MAX_BYTES:
            what = "of unknown size" if size is None else f"larger than {in_words(MAX_BYTES)}"
            raise PlanError(f"plan {quoted(repository)} is {what}; it was not downloaded")
        path = hf_hub_download(repository, FILE, revision=revision)
    except PlanError:
        raise
    except Exception as error:  # the client of the Hub raises many kinds
        raise PlanError(
            f"no plan at {quoted(repository)}: it is no file here, and as a repository on the Hub "
            f"{FILE} could not be fetched from it: {shortened(str(error), 200)}"
        ) from error
    return Plan.load(path)


def is_repository(source: str | Path) -> bool:
    """Whether `load_plan` looks for a plan on the Hub, and not in a file."""
    return (
        isinstance(source, str)
        and len(source) <= 96  # as the Hub has it
        and _OWNER_AND_NAME.fullmatch(source) is not None
        and not re.search(r"--|\.\.|\.(git|json)$", source, re.IGNORECASE)
        and not os.path.exists(source)
    )


def _load_file(path: str | Path) -> Plan:
    try:
        return Plan.load(path)
    except PlanError as error:
        if isinstance(error.__cause__, ValueError) and isinstance(
            error.__cause__.__cause__, FileNotFoundError
        ):
            hint = "give a plan file or a Hub repository, owner/name"
            raise PlanError(f"{error}; {hint}") from error
        raise


def push_plan(plan: Plan, repository: str, private: bool = False) -> str:
    """Put a plan on the Hub, where `enable` finds it by the repository's name.

    Args:
        plan: the plan.
        repository: `owner/name`; made if it does not exist.
        private: whether a new repository is private.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        plan.save(path)
        commit = api.upload_file(
            path_or_fileobj=path,
            path_in_repo=FILE,
            repo_id=repository,
            commit_message="ajour plan",
        )
    return str(commit.commit_url)
