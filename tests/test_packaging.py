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
    """The wheel of this checkout, made by the script of the release workflow."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*BUILT_FROM, *WORKFLOW, "src"):
        if (REPOSITORY / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=left_out)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / "source" / name)
    shutil.copytree(REPOSITORY / ".ci", folder / "source" / ".ci")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    released = subprocess.run(
        ["bash", ".ci/release", f"v{PROJECT['project']['version']}"],
        cwd=folder / "source",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert released.returncode == 0, released.stderr[-3000:]
    assert released.stdout.count("PASSED") == 2, "wheel and source distribution are checked"
    assert "The workflow lies in run." in released.stdout
    (built,) = folder.glob("source/dist/*.whl")
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


def test_the_release_runs_the_script_with_pinned_actions() -> None:
    """What the workflow does beyond the script are actions, each pinned by a commit."""
    text = (REPOSITORY / ".github/workflows/release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    scripts = {
        step["if"].removeprefix("github.ref_type "): step["run"] for step in steps if "run" in step
    }
    assert scripts == {
        "== 'tag'": 'bash .ci/release "$GITHUB_REF_NAME"',
        "!= 'tag'": "bash .ci/release",
    }
    used = [step["uses"] for step in steps if "run" not in step]
    assert len(used) == len(steps) - len(scripts) == 5
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used), used
    assert len(re.findall(r"uses: \S+ # v\d+\.\d+\.\d+$", text, re.M)) == len(used)
    (python,) = (step["with"]["python-version"] for step in steps if "setup-python" in str(step))
    assert PROJECT["project"]["requires-python"] == f">={python}"


def test_a_tag_of_another_version_is_not_released(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / ".ci", tmp_path / ".ci")
    shutil.copy2(REPOSITORY / "pyproject.toml", tmp_path)
    words = ["bash", tmp_path / ".ci/release", "v0.0.1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the tag v0.0.1 does not name the version in pyproject.toml; correct one of them\n"
    )
    assert sorted(os.listdir(tmp_path)) == [".ci", "pyproject.toml"]
