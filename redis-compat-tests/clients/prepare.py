"""Installs what the client tests need: Debian packages if they are missing, then pinned pip and npm packages.

Everything but the Debian packages goes to redis-compat-tests/.work, and is installed again only when the pinned
versions change.
"""
import os
import shutil
import subprocess
import sys

from harness.process import WORK

HERE = os.path.dirname(os.path.abspath(__file__))
# program: Debian package
PROGRAMS = {"redis-server": "redis-server", "redis-cli": "redis-tools", "redis-benchmark": "redis-tools", "node": "nodejs", "npm": "npm"}


def run(words, **options):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise SystemExit("%s failed:\n%s" % (" ".join(words), done.stdout[-3000:]))
    return done.stdout


def debian_packages(wanted):
    """Install the packages whose programs are missing; a person without root gets the command to type."""
    packages = sorted({PROGRAMS[program] for program in wanted if not shutil.which(program)})
    if "python" in wanted and subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode:
        packages.append("python3-venv")
    if not packages:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = sudo + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"] + packages
    if not shutil.which("apt-get") or (sudo and not shutil.which("sudo")):
        raise SystemExit("needed: %s" % " ".join(packages))
    print("installing " + " ".join(packages), flush=True)
    # A packaged redis-server must not start as a service and take port 6379.
    if not os.path.exists("/run/systemd/system"):
        run(sudo + ["apt-get", "update"])
    run(command)


def stamped(directory, *sources):
    """Whether `directory` was made from these files as they are now."""
    text = "".join(open(source).read() for source in sources)
    stamp = os.path.join(directory, ".made-from")
    return os.path.exists(stamp) and open(stamp).read() == text, stamp, text


def python_environment():
    """The interpreter of a virtual environment that has the pinned packages."""
    directory, requirements = os.path.join(WORK, "python"), os.path.join(HERE, "requirements.txt")
    fresh, stamp, text = stamped(directory, requirements) if os.path.isdir(directory) else (False, os.path.join(directory, ".made-from"), open(requirements).read())
    if not fresh:
        print("installing Python packages", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        run([sys.executable, "-m", "venv", directory])
        run([os.path.join(directory, "bin", "pip"), "install", "--quiet", "-r", requirements])
        with open(stamp, "w") as file:
            file.write(text)
    return os.path.join(directory, "bin", "python")


def node_modules():
    """A folder with node_modules as pinned by package-lock.json."""
    directory = os.path.join(WORK, "node")
    sources = [os.path.join(HERE, name) for name in ("package.json", "package-lock.json")]
    os.makedirs(directory, exist_ok=True)
    fresh, stamp, text = stamped(directory, *sources)
    if not fresh or not os.path.isdir(os.path.join(directory, "node_modules")):
        print("installing npm packages", flush=True)
        for source in sources:
            shutil.copy(source, directory)
        run(["npm", "ci", "--no-audit", "--no-fund"], cwd=directory)
        with open(stamp, "w") as file:
            file.write(text)
    return directory


def rust_program():
    """The compiled Rust client, a package of its own."""
    target = os.path.join(WORK, "rust")
    run([os.environ.get("CARGO", "cargo"), "build", "--quiet", "--locked", "--manifest-path", os.path.join(HERE, "rust", "Cargo.toml"),
         "--target-dir", target])
    return os.path.join(target, "debug", "starling-client-tests")
