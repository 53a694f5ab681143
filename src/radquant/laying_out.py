"""The workflow as a folder of its own, for those who installed the package and have no checkout."""

import shutil
from pathlib import Path

from radquant import __version__
from radquant.errors import UserError

SOURCE = Path(__file__).resolve().parents[1]  # the folder that this package lies in
# What lies beside src/ in a checkout and makes the workflow. setup.py puts it into the wheel.
WORKFLOW = (
    "Snakefile",
    "config.yaml",
    "config",
    "envs",
    "examples",
    "profiles",
    "prompts",
    "rules",
    "scripts",
)
IN_WHEEL = "radquant_workflow"
# The folder has its own code, as a checkout has. Jobs run that code, and their results depend on
# it. The tools' environments find it beside no other package.
CODE = ("radquant", "snakemake_logger_plugin_radquant")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py[cod]")


def lay_out(folder: Path) -> None:
    """Copy the workflow and the package's code into a folder that is new or empty.

    Raises UserError if the folder holds anything, or if this installation has no workflow.
    """
    source = workflow_files()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a folder that is new or empty")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy(source, WORKFLOW, folder)
        copy(SOURCE, CODE, folder / "src")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None


def workflow_files() -> Path:
    """The folder with the workflow's files: that of the wheel, or the checkout."""
    for folder in (SOURCE / IN_WHEEL, SOURCE.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError(
        f"this installation of radquant has no workflow in {SOURCE / IN_WHEEL}; install its wheel "
        "again"
    )


def copy(source: Path, names: tuple[str, ...], target: Path) -> None:
    """Copy files and folders of these names, without what Python has compiled."""
    target.mkdir(exist_ok=True)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=LEFT_OUT)
        else:
            shutil.copy2(source / name, target / name)


def require_same_release(workflow: Path) -> None:
    """Raise UserError if the workflow's own code is of another release than this package.

    The plan is made by the installed package, and jobs run the workflow's own code.
    """
    own = workflow / "src" / "radquant" / "__init__.py"
    if not own.is_file() or f'__version__ = "{__version__}"' in own.read_text(encoding="utf-8"):
        return
    raise UserError(
        f"{workflow} holds another release of radquant than {__version__}, which is installed; "
        "install that release, or lay out a new folder with radquant init"
    )
