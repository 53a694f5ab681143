"""Puts the workflow, which lies beside the package in a checkout, into the wheel.

pyproject.toml says everything else.
"""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "src"))

from radquant.laying_out import IN_WHEEL, WORKFLOW, copy  # noqa: E402


class WithWorkflow(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, IN_WHEEL)
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        copy(HERE, WORKFLOW, target)


setup(cmdclass={"build_py": WithWorkflow})
