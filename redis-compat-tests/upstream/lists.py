"""The lists beside the suite: what redis-server passes, and what is excused here.

baseline.tsv, baseline_cluster.tsv, baseline_own.tsv: file, name of the test, times passed by redis-server 7.0.15
(names repeat in loops). exceptions.tsv: file, name of a test (or `*` for the whole file, or a pattern with `*`),
reason. Files that the suite runs against servers of its own are written `own:unit/auth`, those of cluster mode
`cluster:unit/type/set`. What a line excuses for `unit/type/set` it excuses in cluster mode too, so that `cluster:` stands
in exceptions.tsv only before what fails in cluster mode alone.
"""
import os
import re
from collections import Counter, defaultdict

HERE = os.path.dirname(os.path.abspath(__file__))
EXCEPTIONS = os.path.join(HERE, "exceptions.tsv")
BASELINES = {"": "baseline.tsv", "own:": "baseline_own.tsv", "cluster:": "baseline_cluster.tsv"}
# An exception whose reason starts so may pass or fail: it depends on timing. To be used rarely.
SOMETIMES = "sometimes: "
# An exception whose reason starts so is not even tried in the usual run: it would cost the suite's whole patience.
HANGS = "hangs: "
CLUSTER = "cluster:"
# The files about data, without what surrounds it (connections, transactions, configuration, scripts).
DATA = re.compile(r"(cluster:)?unit/(type/.*|bitfield|bitops|dump|expire|geo|hyperloglog|keyspace|scan|sort)")


class ListError(Exception):
    """A line of a list that says nothing useful."""


def rows(path, columns):
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != columns or not all(field.strip() for field in fields):
                raise ListError("%s:%d: expected %d columns, none empty: %r" % (path, number, columns, line))
            yield fields


def baseline(prefixes):
    """{file: Counter of names} for the given kinds of run."""
    files = defaultdict(Counter)
    for prefix in prefixes:
        for file, name, count in rows(os.path.join(HERE, BASELINES[prefix]), 3):
            files[prefix + file][name] += int(count)
    return dict(files)


def write_baseline(prefix, passed):
    path = os.path.join(HERE, BASELINES[prefix])
    with open(path, "w", encoding="utf-8") as file:
        file.write("# file, test name, times passed on redis-server 7.0.15\n")
        for name in sorted(passed):
            for test, count in sorted(passed[name].items()):
                file.write("%s\t%s\t%d\n" % (name[len(prefix):], test, count))


def prune(leaving, path=EXCEPTIONS):
    """Takes the given (file, name) lines out of the list; comments and order stay."""
    gone = {"%s\t%s\t" % line for line in leaving}
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line for line in lines if not any(line.startswith(start) for start in gone))


class Exceptions:
    """Lines of exceptions.tsv: `whole` files, exact names, and patterns."""

    def __init__(self, path=EXCEPTIONS):
        self.whole, self.exact, self.patterns = {}, defaultdict(dict), defaultdict(dict)
        # Lines of cluster mode that are those of the same file on a server of its own.
        self.inherited = set()
        for file, name, reason in rows(path, 3):
            if name == "*":
                self.whole[file] = reason
            else:
                self.exact[file][name] = reason

    def bind(self, files):
        """Tells names from patterns: a name with `*` that no test of the file has is a pattern."""
        for file, names in self.exact.items():
            for name in [name for name in names if "*" in name and name not in files.get(file, ())]:
                self.patterns[file][name] = names.pop(name)
        for file in files:
            if file.startswith(CLUSTER):
                self.inherit(file, file[len(CLUSTER):], files[file])

    def inherit(self, file, plain, names):
        if plain in self.whole and file not in self.whole:
            self.whole[file] = self.whole[plain]
            self.inherited.add((file, "*"))
        for kind in (self.exact, self.patterns):
            for name, reason in kind.get(plain, {}).items():
                if name not in kind[file] and any(name == known or matches(name, known) for known in names):
                    kind[file][name] = reason
                    self.inherited.add((file, name))

    def unknown(self, files):
        """Lines that excuse nothing the baseline knows."""
        lost = [(file, "*") for file in self.whole if file not in files]
        for file, names in self.exact.items():
            lost += [(file, name) for name in names if name not in files.get(file, ())]
        for file, patterns in self.patterns.items():
            lost += [(file, p) for p in patterns if not any(matches(p, name) for name in files.get(file, ()))]
        return lost

    def hanging(self, file):
        """Arguments of the suite's --skiptest for tests that are known to hang: names, and patterns as /regex."""
        names = [name for name, reason in self.exact.get(file, {}).items() if reason.startswith(HANGS)]
        return names + [
            "/^" + ".*".join(re.sub(r"([^\w ])", r"\\\1", part) for part in pattern.split("*")) + "$"
            for pattern, reason in self.patterns.get(file, {}).items() if reason.startswith(HANGS)
        ]

    def find(self, file, name):
        """(the line's name, its reason) or None. A whole file's line is not asked here."""
        if name in self.exact.get(file, ()):
            return name, self.exact[file][name]
        for pattern, reason in self.patterns.get(file, {}).items():
            if matches(pattern, name):
                return pattern, reason
        return None


def matches(pattern, name):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.S) is not None


class Verdict:
    """What a run means: `missing` fail and are not excused, `leaving` are excused and pass, `excused` fail as listed."""

    def __init__(self, files, exceptions, passed):
        self.passed = self.excused = self.whole_tests = 0
        self.missing, self.leaving, self.newly = [], [], []
        # {kind of run: Counter of `run`, `passed`, `excused`} of the data files, and why they are excused.
        self.data, self.data_reasons = defaultdict(Counter), Counter()
        for file in sorted(files):
            whole, got = file in exceptions.whole, passed.get(file)
            good = Counter({name: min(count, got[name]) for name, count in files[file].items()} if got else {})
            self.passed += sum(good.values())
            if whole:
                self.whole_tests += sum(files[file].values())
                self.newly += [(file, name) for name in files[file] if got and good[name] == files[file][name]]
                continue
            if got is None:
                continue
            by_line = defaultdict(list)
            for name, count in sorted(files[file].items()):
                line, failures = exceptions.find(file, name), count - good[name]
                if line:
                    by_line[line].append(not failures)
                    self.excused += failures
                elif failures:
                    self.missing.append((file, name))
                self.count_data(file, good[name], failures, line)
            self.leaving += [(file, name) for (name, reason), passes in by_line.items()
                             if all(passes) and not reason.startswith(SOMETIMES)
                             and (file, name) not in exceptions.inherited]

    def count_data(self, file, passes, failures, line):
        kind = DATA.fullmatch(file)
        if kind:
            excused = failures if line else 0
            self.data[kind.group(1) or ""].update(run=passes + failures, passed=passes, excused=excused)
            if excused:
                self.data_reasons[line[1]] += excused
