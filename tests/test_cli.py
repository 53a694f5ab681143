"""How scripts end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
# Waits in a child, as for vLLM, or in Python, with a temporary folder open.
SCRIPT = """
import subprocess, sys, tempfile, time
from pathlib import Path
from radquant.cli import run

def main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        Path(folder, "text").write_text("the lungs are clear")
        if sys.argv[2] == "child":
            subprocess.run(["sh", "-c", "echo $$; exec sleep 600"])
        print("waiting", flush=True)
        time.sleep(600)

run(main)
"""


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("where", ["child", "python"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_end_from_outside_leaves_nothing(
    tmp_path: Path, where: str, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        # Tests that run in a shell's background have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert list(tmp_path.iterdir())
    time.sleep(1)  # the child may speak before Python knows that it runs
    process.send_signal(number)
    _, log = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in log
    assert list(tmp_path.iterdir()) == []
    if where == "child":
        deadline = time.monotonic() + 10
        while not gone(int(said)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(int(said))


def test_long_work_tells_of_itself_before_it_counts_anything(tmp_path: Path) -> None:
    """Within five seconds: loading a model may take minutes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from radquant.cli import progress, run\n"
        "def main():\n"
        "    time.sleep(4.5)\n"
        "    for _ in progress(range(8), 'layers', 8):\n"
        "        time.sleep(1)\n"
        "run(main)\n"
    )
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = []
    begun = time.monotonic()
    for line in process.stderr:
        told.append((line.strip(), time.monotonic() - begun))
    process.wait()
    assert [line.partition(",")[0] for line, _ in told] == [
        "at work",
        "layers: 4/8 items",
        "layers: 8/8 items",
    ]
    assert told[0][1] < 5  # of a process that takes none of it to start
