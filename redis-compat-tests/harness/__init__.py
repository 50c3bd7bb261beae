"""What the suites beside this folder share: starting servers and clusters, and speaking RESP over a raw socket.

Python 3.9 or newer, standard library only. A suite puts `redis-compat-tests` on its path and imports
`harness.process`, `harness.wire`, `harness.topology` and `harness.routing`.
"""
