"""Many short conversations at once: send some bytes, collect what comes back, notice how it ends.

One thread and non-blocking sockets. Every conversation ends as one of `ENDINGS` within its time limit.
"""
import errno
import selectors
import socket
import time

# closed: the server closed. reset: it closed with bytes unread, so that its last reply may be lost.
# open: it is quiet and waits for more. stuck: it neither answered nor closed in time.
ENDINGS = ("closed", "reset", "open", "stuck")
QUIET_SECONDS = 0.15


class Conversation:
    """`finish`: close our side after sending, after which the server must close. Otherwise wait for quiet or a close.

    `patient`: without finish, wait for the close until the limit and call quiet "stuck".
    """

    def __init__(self, port, data, finish=True, patient=False, limit=20.0, context=None):
        self.port, self.data, self.finish, self.patient, self.limit, self.context = port, data, finish, patient, limit, context
        self.sent, self.received, self.ending = 0, bytearray(), None
        self.quiet_since = None


def converse(conversations, parallel=48):
    """Run an iterable of conversations, and yield each when it has ended."""
    selector = selectors.DefaultSelector()
    running = set()
    source = iter(conversations)
    exhausted = False
    try:
        while True:
            while not exhausted and len(running) < parallel:
                conversation = next(source, None)
                if conversation is None:
                    exhausted = True
                    break
                open_socket(conversation)
                selector.register(conversation.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, conversation)
                running.add(conversation)
            if not running:
                return
            for key, events in selector.select(0.02):
                step(selector, key.data, events)
            now = time.monotonic()
            for conversation in [c for c in running if c.ending or ended_by_time(c, now)]:
                running.discard(conversation)
                selector.unregister(conversation.socket)
                conversation.socket.close()
                yield conversation
    finally:
        for conversation in running:
            conversation.socket.close()
        selector.close()


def open_socket(conversation):
    while True:
        try:
            conversation.socket = socket.create_connection(("127.0.0.1", conversation.port), 10)
            break
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            time.sleep(0.2)  # all local ports are in use by connections that have just been closed
    conversation.socket.setblocking(False)
    conversation.started = conversation.quiet_since = time.monotonic()


def step(selector, conversation, events):
    connection = conversation.socket
    try:
        if events & selectors.EVENT_WRITE:
            conversation.sent += connection.send(conversation.data[conversation.sent:conversation.sent + 65536])
            if conversation.sent >= len(conversation.data):
                if conversation.finish:
                    connection.shutdown(socket.SHUT_WR)
                selector.modify(connection, selectors.EVENT_READ, conversation)
            conversation.quiet_since = time.monotonic()
        if events & selectors.EVENT_READ:
            chunk = connection.recv(262144)
            if not chunk:
                conversation.ending = "closed"
            conversation.received += chunk
            conversation.quiet_since = time.monotonic()
    except BlockingIOError:
        pass
    except (ConnectionResetError, BrokenPipeError, OSError):
        drain(conversation)


def drain(conversation):
    """After a failed send, read the reply that may have arrived before the reset."""
    conversation.ending = "reset"
    try:
        while True:
            chunk = conversation.socket.recv(262144)
            if not chunk:
                return
            conversation.received += chunk
    except OSError:
        return


def ended_by_time(conversation, now):
    if now - conversation.started > conversation.limit:
        conversation.ending = "stuck"
    elif (not conversation.finish and not conversation.patient and conversation.sent >= len(conversation.data)
          and now - conversation.quiet_since > QUIET_SECONDS):
        conversation.ending = "open"
    return conversation.ending is not None
