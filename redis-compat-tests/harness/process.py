"""Servers as child processes: free ports, start, readiness, memory, CPU, stop.

A server is described by a command line with the places {port} and {dir}; `COMMANDS` has the two that the
suites know. Everything binds to loopback. A process is ended by its own handle, never by name.
"""
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.path.join(REPOSITORY, "redis-compat-tests", ".work")


def starling(binary):
    """The template for a binary of ours. It saves no file, neither by a rule nor at its end, like the one of redis-server."""
    return os.path.abspath(binary) + " --port {port} --dir {dir} --save ''"


def redis(binary):
    """The template for a server of Redis's family; it saves no file either."""
    return binary + " --port {port} --dir {dir} --bind 127.0.0.1 --save '' --appendonly no --daemonize no"


COMMANDS = {
    "redis": redis("redis-server"),
    "starling": starling(os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(REPOSITORY, "target")), "release", "starling")),
}


def named_peers():
    """Binaries of other servers that suites compare with too, where the environment names some."""
    return [peer for peer in os.environ.get("COMPAT_PEERS", "").split(":") if peer]


def is_redis(command):
    """Whether a command line runs redis-server (or valkey-server) itself: the suites then test themselves."""
    return os.path.basename(shlex.split(command)[0]) in ("redis-server", "valkey-server")


def command_line(name_or_command):
    """The template for a short name of `COMMANDS`, or the argument itself."""
    return COMMANDS.get(name_or_command, name_or_command)


def free_port(span=10000, low=11000, high=45000):
    """A port that is free now, and whose cluster port (port + span) is free too.

    Below the kernel's usual ephemeral range plus the span, so that the sum stays below 65536.
    """
    generator = random.SystemRandom()
    while True:
        port = generator.randrange(low, high)
        try:
            for candidate in (port, port + span):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", candidate))
            return port
        except OSError:
            continue


class Server:
    """One running server. `extra` is appended to its command line; `cpus` pins it ("0", "0-1"); `host` is where it listens."""

    def __init__(self, command, extra=(), port=None, directory=None, cpus=None, environment=None, places=None, host="127.0.0.1"):
        self.command = command_line(command)
        self.extra = list(extra)
        self.port = port or free_port()
        self.owns_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="compat-")
        self.cpus = cpus
        self.host = host
        self.environment = dict(os.environ, **(environment or {}))
        self.places = dict(places or {}, port=str(self.port), dir=self.directory)
        self.process = None
        self.start()

    def arguments(self):
        words = shlex.split(self.command) + self.extra
        for name, value in self.places.items():
            words = [word.replace("{" + name + "}", value) for word in words]
        return (["taskset", "-c", self.cpus] if self.cpus else []) + words

    def start(self):
        """Start (or start again) the process on the same port and directory, without waiting for it."""
        self.log_path = os.path.join(self.directory, "server.log")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment, cwd=self.directory)
        self.started = time.monotonic()

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log_tail(self, size=2000):
        with open(self.log_path, "rb") as log:
            return log.read()[-size:].decode("utf-8", "replace")

    def wait_ready(self, timeout=60, probe=b"*1\r\n$4\r\nPING\r\n", good=(b"+PONG", b"-NOAUTH")):
        """Seconds from the start until the server answers `probe` with one of `good`."""
        while time.monotonic() - self.started < timeout:
            if not self.alive():
                raise RuntimeError("%s exited with %s:\n%s" % (self.arguments()[0], self.process.returncode, self.log_tail()))
            try:
                with socket.create_connection((self.host, self.port), 1) as connection:
                    connection.settimeout(5)
                    connection.sendall(probe)
                    if connection.recv(64).startswith(tuple(good)):
                        return time.monotonic() - self.started
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError("%s does not answer on port %d:\n%s" % (self.arguments()[0], self.port, self.log_tail()))

    def memory(self):
        """Resident bytes."""
        with open("/proc/%d/status" % self.pid) as status:
            for line in status:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) * 1024
        return 0

    def cpu_seconds(self):
        """User and system time of all threads: schedstat counts nanoseconds, /proc/PID/stat only 10 ms ticks."""
        total = 0
        for thread in os.listdir("/proc/%d/task" % self.pid):
            try:
                with open("/proc/%d/task/%s/schedstat" % (self.pid, thread)) as file:
                    total += int(file.read().split()[0])
            except (OSError, ValueError, IndexError):
                continue
        if total:
            return total / 1e9
        with open("/proc/%d/stat" % self.pid) as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send_signal(self, number):
        if self.alive():
            self.process.send_signal(number)

    def end(self, number=signal.SIGTERM, timeout=20):
        """Ask the process to end, wait, and insist if it does not. True when it ended by itself in time."""
        if not self.alive():
            return True
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False

    def close(self):
        """End the process at once and remove the directory that was made for it."""
        self.end(signal.SIGKILL)
        if self.owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
