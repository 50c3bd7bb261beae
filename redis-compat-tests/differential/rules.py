"""Every way in which two replies may differ and still count as equal, and every command that is left out.

This is the only place that forgives a difference. Each row has a reason that a user of Redis would accept. Replies
that are equal byte for byte never get here. `compare.py` holds the functions that the rows name.
"""
from collections import namedtuple

# how: the name of a function in compare.py. commands: names as COMMAND LIST writes them, "*" for all.
Rule = namedtuple("Rule", "how commands reason")

RULES = [
    Rule("unordered", "keys smembers sunion sinter sdiff hkeys hvals command|list pubsub|channels pubsub|shardchannels",
         "a set has no order; Redis's own order changes with its hash seed"),
    Rule("unordered_pairs", "hgetall config|get",
         "a hash has no order beyond its pairs; Redis's own order changes with its hash seed"),
    Rule("members_of_previous", "randomkey spop srandmember hrandfield zrandmember",
         "chosen at random: same number of elements, each an element of the collection that was read just before"),
    Rule("near_seconds", "ttl expiretime lastsave",
         "read from two clocks at two moments: at most 3 s apart; -1 and -2 must be equal"),
    Rule("near_milliseconds", "pttl pexpiretime",
         "read from two clocks at two moments: at most 3000 ms apart; -1 and -2 must be equal"),
    Rule("near_time", "time", "read from two clocks at two moments: at most 3 s apart"),
    Rule("near_stream_id", "xadd", "the id that * stands for begins with the time: at most 3000 ms apart"),
    Rule("stream_info", "xinfo|stream xinfo|groups xinfo|consumers",
         "times of two clocks, nodes of the implementation's tree, and what Redis 7.2 shows besides; the rest must be equal"),
    Rule("pending", "xpending", "idle times of two clocks: at most 3000 ms apart"),
    Rule("doubles", "zadd zincrby zscore zmscore zrange zrevrange zrangebyscore zrevrangebyscore zpopmin zpopmax zmpop "
         "bzpopmin bzpopmax bzmpop zdiff zinter zunion zscan geodist geopos georadius georadius_ro georadiusbymember "
         "georadiusbymember_ro geosearch",
         "Redis 7.0 prints 17 digits of a score, 7.2 and Starling the shortest text that reads back as the same double"),
    Rule("float_sum", "incrbyfloat hincrbyfloat",
         "Redis adds in the x87 long double of its platform, which no other architecture has: equal to 1 part in 1e15, "
         "and beyond the range of a double Starling answers an error. The key is overwritten afterwards, so the difference does not spread"),
    Rule("encoding", "object|encoding",
         "Redis 7.2 keeps small lists and sets as listpack, 7.0 as quicklist and hashtable; Redis 8 keeps hashes as listpackex "
         "once one of their fields was to have a deadline, here they are while one has"),
    Rule("same_kind", "client|id memory|usage object|refcount",
         "a figure of the implementation: only that it is an integer, or that both answer the same error"),
    Rule("same_kind", "object|idletime",
         "Redis shares the objects of small integers, and answers with the idle time of the shared object"),
    Rule("same_kind", "dbsize",
         "counts keys that have expired and are not removed yet, and when that happens is each server's choice; the audit "
         "at the end compares the keys themselves"),
    Rule("hello", "hello", "server, version and id name the implementation; proto, mode, role are compared"),
    Rule("sorted_by_nothing", "sort sort_ro",
         "elements that weigh the same, and sets sorted BY nosort, have no order, so a LIMIT may take any of them; Redis "
         "refuses a number where an earlier one of any command was too large (it reads a stale errno), and compares texts up "
         "to their first zero byte"),
]

# Error texts that changed between Redis 7.0 and 7.2: (pattern of the reference, pattern of the target, reason).
ERROR_TEXTS = []

# Commands that are not generated. Names as COMMAND LIST writes them; a container's name covers its subcommands.
SKIPPED = {
    "shutdown": "ends the server", "debug": "not an interface", "monitor": "turns the connection into a stream",
    "sync": "turns the connection into a stream", "psync": "turns the connection into a stream",
    "replconf": "replication protocol", "replicaof": "changes the node's role", "slaveof": "changes the node's role",
    "failover": "changes the node's role", "role": "describes the node", "wait": "needs copies",
    "save": "writes files", "bgsave": "writes files", "bgrewriteaof": "writes files", "lastsave": "describes the node",
    "config": "server control: tests of its own", "acl": "server control", "module": "server control",
    "latency": "server control", "slowlog": "server control", "info": "describes the node", "lolwut": "art",
    "cluster": "cluster control: the client suites use it", "asking": "cluster control", "readonly": "cluster control",
    "readwrite": "cluster control", "memory|doctor": "describes the node", "memory|malloc-stats": "describes the node",
    "memory|purge": "describes the node", "memory|stats": "describes the node",
    "command": "the command table has a test of its own", "quit": "closes the connection", "auth": "no password is set",
    "eval": "needs scripts", "eval_ro": "needs scripts", "evalsha": "needs scripts", "evalsha_ro": "needs scripts",
    "script": "needs scripts", "fcall": "needs scripts", "fcall_ro": "needs scripts", "function": "needs scripts",
    "migrate": "needs a second server", "restore": "needs a payload", "restore-asking": "needs a payload",
    "dump": "the payload carries the version of the format", "pfdebug": "internal", "pfselftest": "internal",
    "subscribe": "out-of-band replies: the client suites use it", "psubscribe": "out-of-band replies",
    "ssubscribe": "out-of-band replies", "unsubscribe": "out-of-band replies", "punsubscribe": "out-of-band replies",
    "sunsubscribe": "out-of-band replies",
    "client|info": "describes the connection", "client|list": "describes the connections",
    "client|kill": "closes connections", "client|pause": "stops the server", "client|unpause": "stops the server",
    "client|reply": "suppresses replies, so that they can no longer be counted",
    "client|tracking": "out-of-band replies", "client|caching": "out-of-band replies",
    "client|setinfo": "not in Redis 7.0", "client|no-touch": "not in Redis 7.0",
}


def skip_reason(name):
    """Why a command is not generated, or None."""
    if name.endswith("|help"):
        return "help texts name the product"
    return SKIPPED.get(name) or SKIPPED.get(name.split("|")[0])


def rule_for(name):
    """The rule of a command, or None: its replies must then be equal byte for byte."""
    return BY_COMMAND.get(name)


BY_COMMAND = {name: rule for rule in RULES for name in rule.commands.split()}
