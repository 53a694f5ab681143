"""Fetching a measure's weights on a connected machine, at pinned commits."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from radquant import hub_errors, registry
from radquant.errors import UserError

# Measures whose weights lie in a folder of several parts.
WITH_FOLDERS = {
    name
    for name in registry.MEASURES
    if hasattr(registry.load_kind(registry.MEASURES, name), "FOLDERS")
}
# The one part that the hub does not have.
NLTK_DATA, NLTK_NAMES = "nltk_data", ("punkt", "punkt_tab")


def fetch(name: str, revisions: Mapping[str, str], output: Path) -> Iterator[str]:
    """Write each part of a measure's folder, and yield a line on it.

    revisions: the commit of each part's repository. Raises UserError where one is missing or
    names no part, where the part is there already, and where a download fails.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    measure = registry.load_kind(registry.MEASURES, name)
    parts = {part: source for part, source in measure.FOLDERS.items() if part != NLTK_DATA}
    for part in revisions.keys() - parts.keys():
        raise UserError(f"{name} has no part {part!r}; it has {', '.join(parts)}")
    lacking = [part for part in parts if part not in revisions]
    if lacking:
        raise UserError(
            f"the commit of {lacking[0]} is missing; give --revision {lacking[0]}=COMMIT, a commit "
            f"of {parts[lacking[0]]}"
        )
    for part, source in parts.items():
        if (output / part).exists():
            raise UserError(f"{output / part} is already there; remove it or fetch elsewhere")
        try:
            if "." in Path(part).name and "/" not in part:  # one file of a repository of several
                hf_hub_download(source, part, revision=revisions[part], local_dir=output)
            else:
                snapshot_download(source, revision=revisions[part], local_dir=output / part)
        except Exception as error:
            what, advice = hub_errors.told(error)
            raise UserError(
                f"{source} at {revisions[part]} could not be fetched ({what}); {advice}"
            ) from None
        yield f"{part}: {source} at {revisions[part]}"
    if NLTK_DATA in measure.FOLDERS:
        import nltk

        for each in NLTK_NAMES:
            if not nltk.download(each, download_dir=str(output / NLTK_DATA), quiet=True):
                raise UserError(f"NLTK's {each} could not be fetched; check the network")
        yield f"{NLTK_DATA}: {' and '.join(NLTK_NAMES)}"
