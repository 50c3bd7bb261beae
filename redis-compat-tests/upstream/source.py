"""Redis's own test suite: where it comes from, how it is unpacked, and what is changed in the local copy.

The suite is not part of this repository. `suite_directory` brings the source package of the distribution's redis into
`redis-compat-tests/.work` (once) and unpacks `tests/` of it. `REDIS_SRC=` names another checkout or tarball instead.
Nothing of Redis is built: redis-cli and redis-benchmark are those on the PATH.
"""
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import urllib.request

from harness.process import WORK

VERSION = "7.0.15"
ORIG = "redis_%s.orig.tar.gz" % VERSION
ORIG_SHA256 = "4b1dc4ee6d622a09fff9c6777191209750fb5e5a725ef78ea012d6eef4c22982"
# Where the same file lies when apt cannot find it; the checksum above decides whether it is the same.
ADDRESSES = (
    "http://deb.debian.org/debian/pool/main/r/redis/" + ORIG,
    "http://deb.debian.org/debian-security/pool/updates/main/r/redis/" + ORIG,
    "https://snapshot.debian.org/archive/debian/20240601T000000Z/pool/main/r/redis/" + ORIG,
)

# Changes to the local copy: (file, what stands there, what stands there instead, why).
PATCHES = (
    (
        "tests/support/server.tcl",
        "    r flushall\n    r function flush\n",
        "    catch {r flushall}\n    catch {r function flush}\n",
        "a block must not be given up because FUNCTION is missing: each of its tests shall count for itself",
    ),
    (
        "tests/support/server.tcl",
        "        dict set saved_config $param [lindex [r config get $param] 1]\n        r config set $param $val\n",
        "        if {[catch {\n            dict set saved_config $param [lindex [r config get $param] 1]\n"
        "            r config set $param $val\n        }]} {continue}\n",
        "the same for a parameter that is not known yet",
    ),
    (
        "tests/support/server.tcl",
        "    dict for {param val} $saved_config {\n        r config set $param $val\n    }\n",
        "    dict for {param val} $saved_config {\n        catch {r config set $param $val}\n    }\n",
        "the same when it is set back",
    ),
    (
        "tests/support/test.tcl",
        '            lappend ::tests_failed $details\n\n            incr ::num_failed\n'
        '            send_data_packet $::test_server_fd err [join $details "\\n"]\n\n'
        "            if {$::stop_on_failure} {\n",
        '            lappend ::tests_failed $details\n\n            incr ::num_failed\n'
        '            send_data_packet $::test_server_fd err [join $details "\\n"]\n'
        "            if {$::external} {catch {reconnect}}\n"
        "            if {$::stop_on_failure} {\n",
        "a failed test may leave its connection inside MULTI or SUBSCRIBE: the next one gets a fresh connection",
    ),
    (
        "tests/support/server.tcl",
        '        while 1 {\n            # check that the server actually started and is ready for connections\n'
        '            if {[count_message_lines $stdout "Ready to accept"] > $previous_ready_count} {\n'
        "                break\n            }\n            after 10\n",
        '        while 1 {\n'
        '            if {[count_message_lines $stdout "Ready to accept"] > $previous_ready_count} {\n'
        "                break\n            }\n"
        '            if {[catch {exec kill -0 $pid}]} {error "the server did not start: [exec cat $stdout $stderr]"}\n'
        "            after 10\n",
        "a server that refuses its configuration must fail its block, not wait for ever",
    ),
    (
        "tests/support/server.tcl",
        "            if {!$assertion && $::durable} {\n",
        "            if {$::durable && $::cur_test eq {}} {\n",
        "an error of a block inside a test fails the test; one outside costs the block alone, assertion or not",
    ),
    (
        "tests/support/server.tcl",
        '                send_data_packet $::test_server_fd err [join $details "\\n"]\n            } else {\n'
        "                # Re-raise, let handler up the stack take care of this.\n                error $error $backtrace\n",
        '                send_data_packet $::test_server_fd err [join $details "\\n"]\n'
        "                set ::tags [lrange $::tags 0 end-[llength $tags]]\n                return\n            } else {\n"
        "                error $error $backtrace\n",
        "its server is gone already: it must not be taken from the stack a second time",
    ),
    (
        "tests/support/server.tcl",
        "        if {$::durable} {\n            set msg [string range $error 10 end]\n",
        "        if {$::durable && $::cur_test eq {}} {\n            set msg [string range $error 10 end]\n",
        "as above, for a server that runs already",
    ),
)


class SourceError(Exception):
    """The suite cannot be had; the message says what to do."""


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def system_release():
    with open("/etc/os-release") as file:
        return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', file.read(), re.M))


def source_stanzas(codename):
    """The machine's own package sources for this release of the distribution, turned into sources of source packages."""
    stanzas = []
    for path in ["/etc/apt/sources.list"] + sorted(glob.glob("/etc/apt/sources.list.d/*")):
        if not os.path.isfile(path):
            continue
        with open(path) as file:
            text = "\n".join(line for line in file.read().splitlines() if not line.lstrip().startswith("#"))
        if path.endswith(".sources"):
            for stanza in re.split(r"\n\s*\n", text):
                suites = re.search(r"^Suites:(.*)$", stanza, re.M)
                if suites and any(suite.startswith(codename) for suite in suites.group(1).split()):
                    stanzas.append(("sources", re.sub(r"^Types:.*$", "Types: deb-src", stanza.strip(), flags=re.M)))
        elif path.endswith(".list"):
            for line in text.splitlines():
                match = re.match(r"\s*deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+.*", line)
                if match and match.group(3).startswith(codename):
                    stanzas.append(("list", re.sub(r"^\s*deb\s", "deb-src ", line)))
    return stanzas


def fetch_by_apt(directory):
    """The source package through apt, with lists and cache of its own: the machine's configuration stays as it is."""
    release = system_release()
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    for number, (kind, stanza) in enumerate(source_stanzas(release.get("VERSION_CODENAME", "stable"))):
        with open(os.path.join(directory, "parts", "%d.%s" % (number, kind)), "w") as file:
            file.write(stanza + "\n")
    options = ["-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "APT::Sandbox::User="]
    for option, name in (("Etc::SourceParts", "parts"), ("State::Lists", "lists"), ("Cache", "cache")):
        options += ["-o", "Dir::%s=%s" % (option, os.path.join(directory, name))]
    for words in (["update"], ["source", "--download-only", "--only-source", "redis"]):
        subprocess.run(["apt-get"] + options + words, cwd=directory, check=True, timeout=300,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def fetch(directory):
    """The path of the original tarball, fetched if it is not there yet."""
    path = os.path.join(directory, ORIG)
    if os.path.exists(path) and sha256(path) == ORIG_SHA256:
        return path
    os.makedirs(directory, exist_ok=True)
    problems = []
    try:
        fetch_by_apt(directory)
    except (OSError, subprocess.SubprocessError) as error:
        problems.append("apt-get: %s %s" % (error, (getattr(error, "stderr", b"") or b"").decode("utf-8", "replace")))
    for address in ADDRESSES:
        if os.path.exists(path) and sha256(path) == ORIG_SHA256:
            return path
        try:
            with urllib.request.urlopen(address, timeout=60) as reply, open(path, "wb") as file:
                shutil.copyfileobj(reply, file)
        except OSError as error:
            problems.append("%s: %s" % (address, error))
    if os.path.exists(path) and sha256(path) == ORIG_SHA256:
        return path
    raise SourceError("no source package of redis %s; set REDIS_SRC to a checkout or tarball of it\n  %s"
                      % (VERSION, "\n  ".join(problems)))


def unpack(tarball, target):
    """`tests/` and what says the version, without the leading directory."""
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            parts = member.name.split("/")[1:]
            wanted = parts and (parts[0] in ("tests", "runtest") or parts == ["src", "version.h"])
            if not wanted or ".." in parts or not (member.isfile() or member.isdir()):
                continue
            member.name = "/".join(parts)
            archive.extract(member, target)


def patch(target):
    """Applies PATCHES; a suite in which a place is not found is another one than they were written for."""
    for name, old, new, _ in PATCHES:
        path = os.path.join(target, name)
        with open(path) as file:
            text = file.read()
        if text.count(old) != 1:
            raise SourceError("%s is not as expected: the changes of source.py do not fit this version" % name)
        with open(path, "w") as file:
            file.write(text.replace(old, new))


def suite_directory():
    """A directory with the patched suite, made anew each time from the tarball or checkout (a second)."""
    source, target = os.environ.get("REDIS_SRC"), os.path.join(WORK, "suite-%d" % os.getpid())
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    if source and os.path.isdir(source):
        shutil.copytree(os.path.join(source, "tests"), os.path.join(target, "tests"))
        shutil.copy(os.path.join(source, "runtest"), target)
    else:
        unpack(source or fetch(os.path.join(WORK, "source")), target)
    patch(target)
    return target
