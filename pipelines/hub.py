"""Plans by path or from the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from ajour.plan import Plan, PlanError

FILE = "plan.json"
"""The name of a plan's file in a repository."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def load_plan(source: str | Path, revision: str | None = None) -> Plan:
    """Read a plan.

    Args:
        source: the path of a plan file, or a repository `owner/name` on the Hub that holds a
            `plan.json`. A path that exists comes first.
        revision: branch, tag or commit of the repository.

    Raises:
        PlanError: if there is no such plan, or it is malformed.
    """
    if Path(source).exists() or not _REPOSITORY.fullmatch(str(source)):
        return Plan.load(source)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(str(source), FILE, revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise PlanError(
            f"no plan at {str(source)!r}: it is no file here, and as a repository on the Hub "
            f"{FILE} could not be fetched from it: {error}"
        ) from error
    return Plan.load(path)


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
