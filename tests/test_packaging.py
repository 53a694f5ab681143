"""The package outside of its repository: wheel, `radquant init`, the catalogue's entry, recipes."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from workflow_helpers import REPOSITORY, SMOKE, copy_repository, dry_run

from radquant.errors import UserError
from radquant.laying_out import CODE, WORKFLOW, lay_out, require_same_release

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
BUILT_FROM += ("CITATION.cff",)


def own_files(root: Path, names: tuple[str, ...]) -> set[str]:
    """The files of these names and folders, without what Python has compiled."""
    found = [each for name in names for each in [root / name, *(root / name).rglob("*")]]
    return {
        path.relative_to(root).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


WORKFLOW_FILES = own_files(REPOSITORY, WORKFLOW)
CODE_FILES = own_files(REPOSITORY / "src", CODE)


def test_init_lays_out_the_workflow_and_its_code(tmp_path: Path) -> None:
    lay_out(tmp_path / "run")
    expected = WORKFLOW_FILES | {f"src/{name}" for name in CODE_FILES}
    assert own_files(tmp_path / "run", (".",)) == expected
    assert {"Snakefile", "config.yaml", "rules/report.smk", "scripts/quantize.py"} <= expected
    for name in expected:
        assert (tmp_path / "run" / name).read_bytes() == (REPOSITORY / name).read_bytes()


def test_a_folder_that_is_laid_out_plans_the_same_jobs(tmp_path: Path) -> None:
    lay_out(tmp_path / "run")
    there = dry_run(tmp_path / "run", *SMOKE)
    assert there.code == 0, there.err
    assert there.jobs == dry_run(copy_repository(tmp_path / "copy"), *SMOKE).jobs
    assert there.jobs["report"] == 1


@pytest.mark.parametrize("name", ["file", ".hidden"])
def test_init_refuses_a_folder_that_is_not_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"is not empty; name a folder that is new or empty$"):
        lay_out(tmp_path)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(UserError, match=r"is a file; name a folder"):
        lay_out(tmp_path / name)


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "radquant", "init"]
    done = subprocess.run([*command, tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"The workflow lies in {tmp_path / 'run'}. Run it there: snakemake --cores 1\n"
    )
    again = subprocess.run([*command, tmp_path / "run"], capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        f"error: {tmp_path / 'run'} is not empty; name a folder that is new or empty\n"
    )


def test_a_folder_of_another_release_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path / "run")
    require_same_release(tmp_path / "run")
    init = tmp_path / "run/src/radquant/__init__.py"
    init.write_text(re.sub(r'= ".*"', '= "0.0.1"', init.read_text(encoding="utf-8")))
    done = dry_run(tmp_path / "run", *SMOKE)
    assert done.code == 1
    assert "holds another release of radquant than" in done.err


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built by way of a source distribution, as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*BUILT_FROM, *WORKFLOW, "src"):
        if (REPOSITORY / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=left_out)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / "source" / name)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    needed = PROJECT["build-system"]["requires"]
    pip = [venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *needed], check=True)
    python = [venv / "bin" / "python", "-c", build, folder]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        python, cwd=folder / "source", env=environment, check=True, stdout=subprocess.DEVNULL
    )
    (source,) = folder.glob("*.tar.gz")
    words = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*pip, *words], env=environment, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packaged = [name for name in names if ".dist-info/" not in name]
    assert len(packaged) == len(set(packaged))
    expected = {f"radquant_workflow/{name}" for name in WORKFLOW_FILES} | CODE_FILES
    assert set(packaged) == expected


@pytest.mark.slow
def test_an_installed_wheel_plans_the_default_job_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """In a virtual environment that takes all other packages from this one."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (place,) = venv.glob("lib/python*/site-packages")
    # Behind its own, so that an editable radquant of the outer environment stays out of sight.
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (place / "outer.pth").write_text("\n".join(outer) + "\n")
    words = ["install", "--quiet", "--no-deps", "--target", str(place), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*command: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [venv / "bin/python", "-m", *map(str, command)],
            cwd=tmp_path / "run" if (tmp_path / "run").exists() else tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    assert "run" in call("radquant", "init", "run").stdout
    planned = call("snakemake", "--cores", "1", "-n", *SMOKE)
    assert re.search(r"^ +1  write the report$", planned.stdout, re.M)


def test_a_folder_with_one_workflow_file_is_enough_for_the_catalogue(tmp_path: Path) -> None:
    """`workflow/Snakefile` plans what the one above plans, and finds the same files."""
    copy = copy_repository(tmp_path / "copy")
    shutil.copytree(REPOSITORY / "workflow", copy / "workflow")
    above = dry_run(copy, *SMOKE)
    below = dry_run(copy, "--snakefile", "workflow/Snakefile", *SMOKE)
    assert above.code == below.code == 0, below.err
    assert above.jobs == below.jobs
    assert above.code_inputs == below.code_inputs


def test_the_catalogue_s_entry_says_what_holds() -> None:
    entry = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    assert set(entry) == {"usage"}
    rules = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    deployment = entry["usage"]["software-stack-deployment"]
    assert deployment["conda"] == bool(re.search(r"^ +conda:", rules, re.M))
    assert deployment["apptainer"] == bool(re.search(r"^ +container:", rules, re.M))
    assert entry["usage"]["report"] == ("report(" in rules)
    told = (REPOSITORY / "config/README.md").read_text(encoding="utf-8")
    assert {path.name for path in (REPOSITORY / "config").glob("*.yaml")} == set(
        re.findall(r"`([\w-]+\.yaml)`", told.split("## The files here")[1])
    )


def test_recipes_name_files_and_a_python_that_hold() -> None:
    environment = yaml.safe_load((REPOSITORY / "environment.yaml").read_text())
    (pip,) = (each["pip"] for each in environment["dependencies"] if isinstance(each, dict))
    container = (REPOSITORY / "Containerfile").read_text()
    for lock in re.findall(r"envs/locks/\S+", " ".join(pip) + " " + container):
        assert (REPOSITORY / lock).is_file()
    (python,) = re.findall(r"^FROM python:([\d.]+)-", container, re.M)
    assert f"python ={python}" in environment["dependencies"]
    assert python == PROJECT["project"]["requires-python"].removeprefix(">=")
    # No results of the checkout, and all that the wheel is built from.
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.+)$", container, re.M)]
    assert {name for names in copied for name in names} == {*BUILT_FROM, *WORKFLOW, "src"}


def test_the_release_is_published_without_a_secret() -> None:
    text = (REPOSITORY / ".github/workflows/release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert "secrets." not in text
    assert "password" not in text
