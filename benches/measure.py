"""What the benchmarks share: the servers of a file, the load generator, tables. Python 3 standard library only."""
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(REPOSITORY, "redis-compat-tests"))
from harness.process import Server  # noqa: E402

GET_X = {"redis": b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", "memcached": b"get x\r\n"}
GOOD = {"redis": (b"$", b"_"), "memcached": (b"END",)}


class Contender:
    """One server of a servers file: its command, its protocol, and its process once started."""

    def __init__(self, entry, threads):
        self.name, self.protocol = entry["name"], entry.get("protocol", "redis")
        self.command = entry["command"].replace("{repository}", REPOSITORY).replace("{peers}", os.environ.get("PEERS", ""))
        self.threads = threads
        self.server = None
        self.filled_bytes = None

    def installed(self):
        return shutil.which(shlex.split(self.command)[0]) is not None

    def start(self, cpus):
        self.server = Server(self.command, cpus=cpus, places={"threads": str(self.threads)})
        self.server.wait_ready(60, GET_X[self.protocol], GOOD[self.protocol])

    def pause(self):
        """Stop the process while another is measured, so that its timers cost the other nothing."""
        self.server.send_signal(signal.SIGSTOP)

    def resume(self):
        self.server.send_signal(signal.SIGCONT)

    def close(self):
        if self.server:
            self.server.close()


def contenders(path, only, threads):
    """The servers of a file that are installed and wanted; the first is what the others are compared with."""
    with open(path) as file:
        entries = json.load(file)
    chosen = []
    for entry in entries:
        if only and entry["name"] not in only.split(","):
            continue
        contender = Contender(entry, threads)
        if contender.installed():
            chosen.append(contender)
        else:
            print("left out: %s, %s is not there" % (contender.name, shlex.split(contender.command)[0]), file=sys.stderr)
    if not chosen:
        raise SystemExit("no server to measure")
    return chosen


def generator():
    """The path of the compiled load generator, built when its source is newer."""
    source = os.path.join(HERE, "generator.c")
    program = os.path.join(REPOSITORY, "target", "bench", "generator")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(program), exist_ok=True)
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            raise SystemExit("a C compiler is needed for the load generator (Debian: gcc)")
        subprocess.check_call([compiler, "-O2", "-o", program, source, "-lpthread"])
    return program


def words_of(contender, queries, cpus, options):
    """The command line of one run of the generator. Options are its one-letter flags."""
    words = [generator(), "-p", str(contender.server.port)]
    for flag, value in options.items():
        words += ["-" + flag, str(value)]
    if contender.protocol == "memcached":
        words += ["-m", "mc"]
    for query in queries:
        words += ["-q", query]
    return (["taskset", "-c", cpus] if cpus else []) + words


@contextlib.contextmanager
def flood(contender, query, cpus, **options):
    """A second client that sends as fast as it can for as long as this lasts; none where there is no query."""
    if not query:
        yield
        return
    client = subprocess.Popen(words_of(contender, ["1:" + query], cpus, dict(options, t=3600)), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        client.kill()
        client.wait()


def load(contender, queries, cpus, **options):
    """One run of the generator; its figures."""
    done = subprocess.run(words_of(contender, queries, cpus, options), capture_output=True, text=True)
    if done.returncode not in (0, 5):
        raise RuntimeError("%s: the generator failed: %s %s" % (contender.name, done.stdout, done.stderr))
    return json.loads(done.stdout)


def markdown(head, rows):
    """A Markdown table, first column to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in rows + [head]) for i in range(len(head))]

    def line(row):
        cells = [str(cell).rjust(widths[i]) if i else str(cell).ljust(widths[i]) for i, cell in enumerate(row)]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule] + [line(row) for row in rows])
