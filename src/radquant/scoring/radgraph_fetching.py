"""Fetching a RadGraph model on a connected machine into a folder that needs no network."""

import contextlib
import os
import shutil
from pathlib import Path

from radquant.errors import UserError
from radquant.files import atomic_directory, read_json, sha256_file, write_json
from radquant.scoring import radgraph


def fetch(
    model_type: str, revision: str, encoder_revision: str, sha256: str | None, output: Path
) -> None:
    """Write `output`/<model_type>/, the text encoder's folder and their record, source.json.

    The record holds, by model, the commits that were found and the sha256 of every file. `output`
    may hold other models. Raises UserError when a download fails, when the archive's sha256 is not
    `sha256` (if given), and when it is unsafe or incomplete. It also does when the folders are
    already there.
    """
    if (output / model_type).exists():
        raise UserError(f"{output / model_type} is already there; remove it or fetch elsewhere")
    archive = radgraph.fetch_archive(model_type, revision)
    found = sha256_file(archive)
    if sha256 not in (None, found):
        raise UserError(
            f"{archive.name} has sha256 {found}, not {sha256} as given; it was changed since, "
            "or it is another revision"
        )
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        part = Path(stack.enter_context(atomic_directory(output / model_type)))
        unpacked = radgraph.unpack(archive, part / ".unpacked", stack)
        radgraph.require_model(unpacked)
        encoder = radgraph.encoder_name(unpacked)
        snapshot = radgraph.fetch_encoder(encoder, encoder_revision)
        folder = _copy_encoder(snapshot, output / Path(encoder).name)
        for path in unpacked.iterdir():
            os.replace(path, part / path.name)
        shutil.rmtree(part / ".unpacked")
    record = {
        "model": {
            "repository": radgraph.HUB_REPOSITORY,
            "revision": archive.parent.name,  # the hub client's cache has a folder for each commit
            "archive": archive.name,
            "sha256": found,
            "files": _hashes(output / model_type, output),
        },
        "encoder": {
            "repository": encoder,
            "revision": snapshot.name,
            "files": _hashes(folder, output),
        },
    }
    path = output / "source.json"
    write_json(path, (read_json(path) if path.is_file() else {}) | {model_type: record})


def _copy_encoder(snapshot: Path, folder: Path) -> Path:
    """Copy the snapshot, unless another model's fetch has brought the very same."""
    names = sorted(path.name for path in snapshot.iterdir() if path.is_file())
    if "config.json" not in names:
        raise UserError(f"{folder.name} has no config.json on the hub; the text encoder needs one")
    if folder.exists():
        same = all(
            (folder / name).is_file() and sha256_file(folder / name) == sha256_file(snapshot / name)
            for name in names
        )
        if not same:
            raise UserError(f"{folder} holds another text encoder; fetch into a folder of its own")
        return folder
    with atomic_directory(folder) as part:
        for name in names:
            shutil.copyfile(snapshot / name, part / name)
    return folder


def _hashes(folder: Path, base: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(base).as_posix(): sha256_file(path) for path in files}
