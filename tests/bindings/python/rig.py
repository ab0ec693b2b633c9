"""A cluster for the tests: `web01` manages it and runs a real daemon, `laptop` is this process."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from malai_ffi import InviteOptions, Malai, MalaiOptions

# Long enough for a busy machine, short enough to notice that something hangs.
DEADLINE = 30
MALAI_TOML = '[network]\nbind = "127.0.0.1:0"\nrelays = "none"\ndiscovery = ["local"]\n'
CLUSTER_TOML = """
[cluster-manager]
id52 = "{root}"
cluster_name = "company"

[machine.web01]
id52 = "{root}"
allow_from = "laptop, tablet"

[machine.web01.command.reboot]
allow_from = "web01"

[machine.laptop]
id52 = "{laptop}"

[machine.tablet]
id52 = "{tablet}"

[machine.gone]
id52 = "{gone}"
allow_from = "laptop"
"""


class Rig:
    """Homes that find each other through one runtime directory."""

    def __init__(self):
        # Not the platform's temporary folder: a Unix socket's path is limited to about 104 bytes.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="malai-py-", dir="/tmp"))
        self.daemon = None
        (self.dir / "run").mkdir(mode=0o700)
        (self.dir / "user").mkdir(mode=0o700)

    def home(self, name):
        """Makes the folder of a home that keeps everything on loopback, the first time, and returns its path."""
        path = self.dir / name
        if not path.exists():
            path.mkdir(mode=0o700)
            (path / "malai.toml").write_text(MALAI_TOML)
        return path

    async def open(self, name, connect_timeout_ms=None):
        options = MalaiOptions(
            runtime_dir=str(self.dir / "run" / "malai"), connect_timeout_ms=connect_timeout_ms
        )
        return await Malai.open(str(self.home(name)), options)

    def start_daemon(self, name):
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.dir / "user"),
            "MALAI_HOME": str(self.home(name)),
            "MALAI_KEYRING": "off",
            "XDG_RUNTIME_DIR": str(self.dir / "run"),
        }
        malai = os.environ["MALAI_BIN"]
        with open(self.dir / "daemon.stderr", "wb") as stderr:
            self.daemon = subprocess.Popen(
                [malai, "daemon", "--foreground"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        await_until(
            lambda: subprocess.run([malai, "status"], env=environment, capture_output=True).returncode == 0,
            "the daemon to answer",
        )

    async def make_cluster(self):
        """Makes a cluster, joins three machines by invite, gives out rights, and returns the home `laptop`."""
        manager = await self.open("web01")
        root = (await manager.init_cluster("company")).id52
        await manager.shutdown()
        self.start_daemon("web01")
        # From now on the daemon does what this asks for.
        manager = await self.open("web01")
        invite = await manager.create_invite("company", InviteOptions(max_uses=3))
        ids = {}
        for name in ("laptop", "tablet", "gone"):
            home = await self.open(name)
            joined = await home.join(invite.invite, "company", name)
            assert joined.waiting is None and joined.machine == name, joined
            ids[name] = joined.id52
            await home.shutdown()
        text = CLUSTER_TOML.format(root=root, **ids)
        (self.home("web01") / "clusters" / "company" / "cluster.toml").write_text(text)
        await manager.rescan()
        await manager.shutdown()
        for name in ("tablet", "laptop"):
            home = await self.open(name)
            (synced,) = await home.sync()
            assert synced.failure is None, synced
            if name == "laptop":
                return home
            await home.shutdown()

    def close(self):
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def await_until(condition, what):
    """Waits for a condition, not for a time."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE} s for {what}")
        time.sleep(0.01)


def is_alive(pid):
    """Says whether a process runs; one that is dead but not reaped does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
