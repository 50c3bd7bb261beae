"""The cases: each does something to the nodes of a cluster that is whole. It gives a line about it, and adds to `problems` what is wrong."""
import signal
import time

from harness.routing import slot_of
from leases.nodes import SLOTS
from restarts.nodes import PROBES, kill, pause

# Load before anything happens: longer than what may be lost. And after all is well again.
BEFORE_SECONDS, AFTER_SECONDS = 3, 0.3
EVERYTHING = float("inf")
# How long nodes run between two kills of all.
GAP_SECONDS = (0.6, 1)


def begin(cluster):
    load = cluster.load()
    load.wait_until_all_keys_are_written()
    time.sleep(BEFORE_SECONDS)
    return load


def finish(cluster, load, settled_until, problems):
    """Ends the load and looks for everything; (acknowledged writes that are gone, of how many)."""
    time.sleep(AFTER_SECONDS)
    problems += load.stop()
    behind = load.look(cluster.nodes, settled_until, problems)
    problems += cluster.problems()
    return behind, load.written()


def one(cluster, random, problems):
    """kill -9 of a node, and it starts again on its directory."""
    node, load = random.choice(cluster.nodes), begin(cluster)
    settled_until = kill(cluster, [node])
    cluster.start([node])
    whole = cluster.wait_whole()
    return "node %d: whole %.1f s after its start, %d of %d acknowledged writes lost" % (
        (node.number, whole) + finish(cluster, load, settled_until, problems))


def away(seconds, stops=False):
    """A node is away for a while, killed or standing still, and is sent only slots in which something was written meanwhile."""
    def case(cluster, random, problems):
        node, load, everybody = random.choice(cluster.nodes), begin(cluster), cluster.nodes
        cluster.nodes = cluster.others(node)
        settled_until = pause(node) if stops else kill(cluster, [node])
        time.sleep(seconds)
        before = cluster.sent()
        if stops:
            node.server.send_signal(signal.SIGCONT)
        else:
            cluster.start([node])
        cluster.nodes = everybody
        whole = cluster.wait_whole()
        cluster.nodes = cluster.others(node)
        alike, sent, size = (now - then for now, then in zip(cluster.sent(), before))
        cluster.nodes = everybody
        # Besides the keys of the load those that say whether all slots are served.
        written = len({slot_of(key) for writer in load.writers for key in writer.history}) + PROBES
        # Who stands still was asked for nothing at its end: what it had served changes its epoch twice, and some of it is sent too.
        most = SLOTS // 4 if stops else written
        problems += ["%d slots were sent, and %d were written" % (sent, written)] * (sent > most)
        return "node %d: %s for %d s, whole %.1f s later: %d slots had the same digest, %d were sent, %.1f MB with what was written; %d of %d acknowledged writes lost" % (
            (node.number, "stopped" if stops else "killed", seconds, whole, alike, sent, size / 1e6) + finish(cluster, load, settled_until, problems))
    return case


def wiped(cluster, random, problems):
    """The same, but its directory is empty then: a new node, and the cluster is whole once the former one is forgotten."""
    node, load = random.choice(cluster.nodes), begin(cluster)
    former, others = node.id, cluster.others(node)
    settled_until = kill(cluster, [node])
    cluster.wipe(node)
    cluster.join_by(node, others[0])
    cluster.start([node])
    node.id = node.call("CLUSTER", "MYID").decode()
    if node.id == former:
        problems.append("it has its former identity")
    cluster.wait_for(lambda: all("fail" in at.flags().get(former, ()) for at in cluster.nodes), "the former node to be down")
    cluster.wait_served()
    reply = others[1].call("CLUSTER", "FORGET", former)
    if reply != b"OK":
        problems.append("CLUSTER FORGET is answered %s" % reply)
    whole = cluster.wait_whole()
    return "node %d: whole %.1f s after CLUSTER FORGET, %d of %d acknowledged writes lost" % (
        (node.number, whole) + finish(cluster, load, settled_until, problems))


def everyone(cluster, _random, problems):
    """kill -9 of all, and all start again: with logs everything but the last moment is there, else nothing."""
    load = begin(cluster)
    settled_until = kill(cluster, cluster.nodes)
    # Whoever writes meanwhile would hide what is not there.
    problems += load.stop(at_once=True)
    return back(cluster, load, settled_until, problems)


def twice(cluster, random, problems):
    """The same, and all are killed again while what follows from it is under way: elections mostly, after about 0.8 s."""
    load = begin(cluster)
    settled_until = kill(cluster, cluster.nodes)
    problems += load.stop(at_once=True)
    gap = random.uniform(*GAP_SECONDS)
    for node in cluster.nodes:
        node.server.start()
    time.sleep(gap)
    kill(cluster, cluster.nodes)
    return "killed again %.2f s after the start, " % gap + back(cluster, load, settled_until, problems)


def moved(number):
    """All end with this signal, and start again on their directories at other ports. Each is told where one of the others is now."""
    def case(cluster, _random, problems):
        load = begin(cluster)
        if number == signal.SIGKILL:
            settled_until = kill(cluster, cluster.nodes)
        else:
            codes, settled_until = cluster.end(cluster.nodes, number), EVERYTHING
            problems += ["they ended with %s" % codes] * any(codes)
        problems += load.stop(at_once=True)
        for node in cluster.nodes:
            cluster.move(node)
        for node, other in zip(cluster.nodes, cluster.nodes[1:] + cluster.nodes[:1]):
            cluster.join_by(node, other)
        return back(cluster, load, settled_until, problems)
    return case


def back(cluster, load, settled_until, problems):
    """Starts all, and looks for everything; a line about it."""
    started = time.monotonic()
    cluster.start(cluster.nodes)
    cluster.wait_served()
    served = time.monotonic() - started
    if cluster.log == "no":
        keys, behind = cluster.keys(), load.written()
        problems += ["%s keys are there, without a log" % keys] * (keys != 0)
    else:
        behind = load.look(cluster.nodes, settled_until, problems)
    whole = cluster.wait_whole()
    problems += cluster.problems()
    return "all slots served %.1f s after the start, whole %.1f s later, %d of %d acknowledged writes lost" % (
        served, whole, behind, load.written())
