"""What a server holds, as its commands answer: values that can be compared between servers."""


def content(connection, key, with_lag=True):
    """What a key holds, in an order of its own. Redis 8 and Valkey count the lag of groups in other ways than Redis 7.0."""
    kind = connection.call("TYPE", key)
    if kind == b"string":
        return kind, connection.call("GET", key)
    if kind == b"list":
        return kind, connection.call("LRANGE", key, "0", "-1")
    if kind == b"set":
        return kind, sorted(connection.call("SMEMBERS", key))
    if kind == b"hash":
        flat = connection.call("HGETALL", key)
        return kind, sorted(zip(flat[::2], flat[1::2]))
    if kind == b"zset":
        flat = connection.call("ZRANGE", key, "0", "-1", "WITHSCORES")
        return kind, [(member, float(score)) for member, score in zip(flat[::2], flat[1::2])]
    if kind == b"stream":
        return kind, stream(connection, key, with_lag)
    return kind, None


def stream(connection, key, with_lag):
    groups = [dict(zip(group[::2], group[1::2])) for group in connection.call("XINFO", "GROUPS", key)]
    pending = [connection.call("XPENDING", key, group[b"name"], "-", "+", "1000000") for group in groups]
    # Times since a delivery go on.
    pending = [[row[:2] + row[3:] for row in rows] for rows in pending]
    if not with_lag:
        groups = [{name: value for name, value in group.items() if name != b"lag"} for group in groups]
    counters = connection.call("XINFO", "STREAM", key)
    counters = [value for name, value in zip(counters[::2], counters[1::2]) if b"radix" not in name]
    return connection.call("XRANGE", key, "-", "+"), groups, pending, counters


def knows_field_deadlines(connection):
    return bool(connection.call("COMMAND", "INFO", "hpexpireat")[0])


def contents(connection, databases, with_lag=True):
    """{(database, key): (type, content, deadline), and the deadlines of a hash's fields where there are some}."""
    found, has_fields = {}, knows_field_deadlines(connection)
    for database in databases:
        connection.call("SELECT", database)
        for key in connection.call("KEYS", "*"):
            kind, value = content(connection, key, with_lag)
            found[database, key] = kind, value, connection.call("PEXPIRETIME", key)
            if has_fields and kind == b"hash":
                fields = [field for field, _ in value]
                deadlines = connection.call("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
                # A server of 7.0 says nothing of them, and has none.
                if any(deadline != -1 for deadline in deadlines):
                    found[database, key] += (deadlines,)
    return found


def with_field_deadlines(found):
    """The keys of hashes of which fields have deadlines."""
    return [key for key, value in found.items() if len(value) > 3]


def differences(way, expected, found):
    """How many there are; some are shown, from a little before where they begin."""
    keys = [key for key in sorted(set(expected) | set(found)) if expected.get(key) != found.get(key)]
    for key in keys[:3]:
        wanted, got = str(expected.get(key)), str(found.get(key))
        begin = max(next((place for place, pair in enumerate(zip(wanted, got)) if pair[0] != pair[1]), 0) - 60, 0)
        print("%s, %r, from %d: %s, not %s" % (way, key, begin, got[begin:begin + 200], wanted[begin:begin + 200]))
    return len(keys)
