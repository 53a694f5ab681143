"""A Slurm of two nodes on this machine, from Debian's packages: `with two_nodes(folder) as nodes`.

Each node is a process namespace of its own with slurmd as its first process. So a SIGKILL for
slurmd ends whatever runs on the node, as a power failure does.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

# Where srun looks inside a job; Snakemake's Slurm plugin drops SLURM_CONF from its environment.
CONFIGURATION = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
OURS = "# Written by radquant's tests, which remove it when they end.\n"

# auth/none and linuxproc need neither munge nor control groups. config_overrides lets the nodes
# have more memory than the machine has, so that the profile's own requests fit. MinJobAge keeps
# ended jobs where squeue sees them, as there is no accounting.
SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
GresTypes=gpu
MinJobAge=3600
EnforcePartLimits=ALL
ReturnToService=0
SlurmdTimeout=10
KillWait=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=1 RealMemory=500000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=1 RealMemory=500000 Gres=gpu:1
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=UNLIMITED
PartitionName=gpu Nodes=n1,n2 MaxTime=UNLIMITED
"""


def missing() -> str | None:
    """Return why no Slurm can be started here, or None."""
    programs = ["slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "unshare"]
    absent = [name for name in programs if not shutil.which(name, path=search_path())]
    if absent:
        return f"Slurm is not installed: {', '.join(absent)} not found (apt-get install slurm-wlm)"
    if os.geteuid():
        return "a Slurm for tests can be started by root only"
    present = [path for path in map(CONFIGURATION.joinpath, FILES) if path.exists()]
    if any(not path.read_text().startswith(OURS) for path in present):
        return f"this machine belongs to a Slurm: {present[0]}"
    return None


def search_path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"  # Debian's daemons are outside a user's path


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def ask(*command: str) -> str:
    """Return what a Slurm command says; fail if it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return what the condition returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return found


def node_states() -> dict[str, str]:
    """The state of each node, such as idle or down*; none while the controller is not up."""
    words = ["sinfo", "--noheader", "--Node", "--partition", "cpu", "--format", "%N %T"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return dict(line.split() for line in done.stdout.splitlines())


def jobs(state: str = "all") -> list[dict[str, str]]:
    """Snakemake's jobs in order: id, state, node (empty while waiting), rule and wildcards."""
    words = ["squeue", "--noheader", "--states", state, "--format", "%i|%T|%N|%k"]
    rows = [line.split("|") for line in ask(*words).splitlines()]
    found = [dict(zip(("id", "state", "node", "rule"), row, strict=True)) for row in rows]
    return sorted(found, key=lambda job: int(job["id"]))


def kill_node(nodes: dict[str, subprocess.Popen[bytes]], name: str) -> None:
    """SIGKILL for a node's slurmd: unshare's child, the first process of the node's namespace."""
    for child in psutil.Process(nodes[name].pid).children():
        child.kill()
    nodes[name].wait(timeout=30)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start the controller and both nodes, wait until they are idle, and stop all in the end."""
    controller, n1, n2 = free_ports(3)
    (folder / "state").mkdir(parents=True)
    settings = SETTINGS.format(
        host=socket.gethostname(), controller=controller, n1=n1, n2=n2, folder=folder
    )
    CONFIGURATION.mkdir(exist_ok=True)
    (CONFIGURATION / "slurm.conf").write_text(OURS + settings)
    (CONFIGURATION / "gres.conf").write_text(OURS + "Name=gpu File=/dev/null\n")
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    commands = {
        "slurmctld": ["slurmctld", "-D", "-c"],
        "n1": [*namespace, "slurmd", "-D", "-N", "n1"],
        "n2": [*namespace, "slurmd", "-D", "-N", "n2"],
    }
    environment = {**os.environ, "PATH": search_path()}
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with open(folder / f"{name}.out", "wb") as out:
                started[name] = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
        idle = {"n1": "idle", "n2": "idle"}
        wait_for(f"two idle nodes; see {folder}/*.log", lambda: node_states() == idle)
        yield started
    finally:
        for name in ("n1", "n2"):
            if name in started and started[name].poll() is None:
                kill_node(started, name)
        if "slurmctld" in started:
            started["slurmctld"].terminate()
            started["slurmctld"].wait(timeout=60)
        for name in FILES:
            (CONFIGURATION / name).unlink(missing_ok=True)
