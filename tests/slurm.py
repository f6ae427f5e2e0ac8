"""A private Slurm for tests: one slurmctld and several slurmd on this machine, from Debian's packages, as root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")


def why_not() -> str | None:
    """Return why no Slurm can be started here, or None."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: apt-get install slurm-wlm munge)."
    return None if os.getuid() == 0 else "Slurm's daemons need root here, to run jobs."


def free_ports(n: int) -> list[int]:
    """Return so many ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


class SlurmCluster:
    """Nodes n1, n2, ... with one CPU each, in two partitions: jobs in `high` preempt those in `low`."""

    def __init__(self, n_nodes: int = 3) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mfas-slurm-", dir="/tmp"))  # A socket's path must be short.
        self.nodes = [f"n{number}" for number in range(1, n_nodes + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        self.folder.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        controller, *ports = free_ports(1 + n_nodes)
        self._write_settings(controller, ports)
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        munge = [f"--{name}={self.folder / 'munge' / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *munge)
        wait_until((self.folder / "munge" / "socket").exists, "munged")
        self._start("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.call("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D") == str(n_nodes), self.log())

    def _write_settings(self, controller: int, ports: list[int]) -> None:
        host, folder = socket.gethostname().partition(".")[0], self.folder
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1"
            for node, port in zip(self.nodes, ports, strict=True)
        )
        (folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
""",
            encoding="utf-8",
        )

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and everything that its jobs run, at once, as when its power fails."""
        slurmd = self._processes[node]
        slurmd.kill()
        slurmd.wait()
        for step in self._steps_of(node):
            for pid in [step, *_descendants(step)]:
                _kill(pid)

    def _steps_of(self, node: str) -> list[int]:
        """Return the processes of Slurm that look after a node's jobs."""
        marks = {str(self.folder).encode(), f"SLURMD_NODENAME={node}".encode()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_step = (folder / "comm").read_text().startswith("slurmstepd")
                children = _descendants(int(folder.name)) if is_step else []
                environment = b"".join(Path(f"/proc/{child}/environ").read_bytes() for child in children[:1])
            except OSError:
                continue
            if is_step and all(mark in environment for mark in marks):
                found.append(int(folder.name))
        return found

    def call(self, *command: str) -> str:
        """Run a command of Slurm and return what it prints."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return result.stdout.strip() if result.returncode == 0 else f"{command[0]}: {result.stderr.strip()}"

    def jobs(self) -> dict[str, str]:
        """Return state and node of each job that is queued or runs, by the number of its place in its array."""
        lines = self.call("squeue", "-h", "-r", "-o", "%K %T %N").splitlines()
        return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}

    def log(self) -> str:
        """Return what the daemons have said."""
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in (self.folder / "log").iterdir()
        )

    def remove(self) -> None:
        """End all jobs and daemons, and delete the folder."""
        try:
            for node in self.nodes:
                self.kill_node(node)
            for process in self._processes.values():
                if process.poll() is None:
                    process.terminate()
                process.wait(30)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, those that are nearest first."""
    try:
        path = Path(f"/proc/{pid}/task/{pid}/children")
        children = [int(child) for child in path.read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in _descendants(child)]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
