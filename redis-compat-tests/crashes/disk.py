"""What a disk has kept of a server's files, told from the record that faulty_disk.c writes.

Two contents of each file: `seen` by every process until the machine goes down, and `kept`, which was synced. A sync that
fails forgets what it should have covered: some of it is kept, and a later sync that succeeds says nothing about the rest,
as the kernel does. `Disk.end` is the end of the process, or of the machine, where any part of what was not synced is lost:

  file         a beginning of the writes, the last of them torn at any byte; or any of their sectors. What is written behind
               a cut that was lost is lost with it
  directory    a beginning of what was created, renamed and removed since its last sync
"""
import collections
import os
import struct

HEAD = struct.Struct("=ciqq")
SECTOR = 512
CREATED, TRUNCATED = 1, 2
# What a fault struck, by the letter in its record.
STRUCK = {"S": "syncs", "W": "writes", "O": "openings", "R": "renamings", "U": "removals", "T": "cuts"}


def put(content, at, data):
    """Writes into a bytearray; what is between its end and the place is zeros."""
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at:at + len(data)] = data


def do(content, change):
    """A write, (place, bytes), or a cut, (length, None)."""
    at, data = change
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
    else:
        put(content, at, data)


class File:
    """One file, whatever its name is."""

    def __init__(self):
        self.seen, self.kept = bytearray(), bytearray()
        # What was done and not synced: changes, in order.
        self.pending = []

    def change(self, change):
        do(self.seen, change)
        self.pending.append(change)

    def synced(self, count):
        """The first so many of what is pending are kept."""
        for change in self.pending[:count]:
            do(self.kept, change)
        del self.pending[:count]

    def lose(self, generator, count=None):
        """Some of what is pending, of the first so many, is kept, the rest of these forgotten. Bytes that were lost."""
        pending = self.pending[:count]
        del self.pending[:count]
        if not pending:
            return 0
        lost = sum(len(data) for _, data in pending if data)
        if generator.random() < 0.5:
            whole = generator.randrange(len(pending) + 1)
            for change in pending[:whole]:
                do(self.kept, change)
                lost -= len(change[1] or b"")
            if whole < len(pending) and pending[whole][1]:
                at, data = pending[whole]
                part = data[:generator.randrange(len(data) + 1)]
                put(self.kept, at, part)
                lost -= len(part)
            return lost
        share = generator.random()
        for at, data in pending:
            if data is None:
                if generator.random() >= share:
                    break
                do(self.kept, (at, None))
                continue
            start = 0
            while start < len(data):
                end = min(start + SECTOR - (at + start) % SECTOR, len(data))
                if generator.random() < share:
                    put(self.kept, at + start, data[start:end])
                    lost -= end - start
                start = end
        return lost


class Disk:
    """One directory, without those in it. `faults` counts what was made to fail."""

    def __init__(self, directory, record, generator):
        self.directory, self.record, self.generator = directory, record, generator
        self.names, self.kept_names = {}, {}
        # Changes of the directory that were not synced: (name, file) or (name, None).
        self.pending = []
        self.faults = collections.Counter()
        self.lost_bytes = 0

    def read(self):
        """Takes over what the record of a process that has ended says, and empties it."""
        with open(self.record, "rb") as file:
            record = memoryview(file.read())
        os.truncate(self.record, 0)
        # None: the directory itself. What is being synced: how much was pending when that began.
        self.files, self.begun, at = {}, {}, 0
        while at + HEAD.size <= len(record):
            what, number, place, length = HEAD.unpack_from(record, at)
            at += HEAD.size
            if at + length > len(record):
                break
            self.step(what, number, place, bytes(record[at:at + length]))
            at += length

    def step(self, what, number, place, data):
        if what == b"O":
            self.opened(number, place, data.decode())
        elif what == b"W":
            self.files[number].change((place, data))
        elif what == b"T":
            self.files[number].change((place, None))
        elif what == b"B":
            self.begun[number] = len((self.files[number] or self).pending)
        elif what == b"S":
            (self.files[number] or self).synced(self.begun.pop(number))
        elif what == b"F":
            # A directory's changes are in a journal: what a sync has not written, the next one does.
            count = self.begun.pop(number)
            if self.files[number]:
                self.files[number].lose(self.generator, count)
        elif what == b"R":
            before, after = data.decode().split("\0")
            # One change: there is no moment without the name.
            self.rename([(after, self.names[before]), (before, None)])
        elif what == b"U":
            self.rename([(data.decode(), None)])
        elif what == b"X":
            is_part = chr(number) == "W" and place == 0
            self.faults["short writes" if is_part else STRUCK[chr(number)]] += 1

    def opened(self, number, how, name):
        if name == "":
            self.files[number] = None
            return
        if how & CREATED:
            self.rename([(name, File())])
        self.files[number] = self.names[name]
        if how & TRUNCATED and not how & CREATED:
            self.files[number].change((0, None))

    def rename(self, changes):
        rename(self.names, changes)
        self.pending.append(changes)

    def synced(self, count):
        for changes in self.pending[:count]:
            rename(self.kept_names, changes)
        del self.pending[:count]

    def end(self, is_power_lost):
        """What the next process finds is put into the directory. The record has been read."""
        if is_power_lost:
            self.synced(self.generator.randrange(len(self.pending) + 1))
            self.pending = []
            self.names = dict(self.kept_names)
            for name in sorted(self.names):
                file = self.names[name]
                self.lost_bytes += file.lose(self.generator)
                file.seen = bytearray(file.kept)
        for name in os.listdir(self.directory):
            if name not in self.names:
                os.remove(os.path.join(self.directory, name))
        for name, file in self.names.items():
            path = os.path.join(self.directory, name)
            if read(path) != file.seen:
                with open(path, "wb") as out:
                    out.write(file.seen)

    def differences(self):
        """Files that are not as the record says, where the process has ended by itself: it would have missed something."""
        names = set(os.listdir(self.directory))
        wrong = sorted(names ^ set(self.names))
        return wrong + [name for name, file in self.names.items() if name in names and read(os.path.join(self.directory, name)) != file.seen]


def rename(names, changes):
    for name, file in changes:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def read(path):
    """What is in a file; None: there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
