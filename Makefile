# The tasks of the project. Logic longer than two lines lives in Rust or in redis-compat-tests/.
# What CI runs is `make verify`: lint, test, bench-instructions.

CARGO ?= cargo
STARLING = target/release/starling
export CARGO_TERM_COLOR ?= auto

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-16s %s\n", $$1, $$2 }'

build: ## the release binary
	$(CARGO) build --release --locked

run: build ## a server on 127.0.0.1:6379
	$(STARLING)

demo: build ## a cluster of three on this machine with live traffic; without a terminal: twenty seconds of it, checked
	$(STARLING) demo

check: ## types only, in seconds
	$(CARGO) check --all-targets

test-tools: # what the tests need and a fresh machine lacks
	@redis-compat-tests/install.sh

unit: ## unit, model and black-box tests
	$(CARGO) test --locked

compat: build test-tools ## Redis's own suite, stock clients and comparisons with redis-server, against this build
	redis-compat-tests/run.py --server $(STARLING)

test: test-tools unit compat ## everything, from a fresh machine; prints the counts

sim: ## the simulation: SEED= to replay one run, RUNS= for more of them
	$(CARGO) test --locked --test simulation -- --nocapture

sim-long: ## the same with optimization: RUNS=10000 seeds, unless told otherwise
	RUNS=$${RUNS:-10000} $(CARGO) test --locked --release --test simulation clusters_survive -- --nocapture

fuzz: ## files, payloads, compressed strings, patterns and numbers that nobody wrote on purpose: RUNS=1000000 of each; SEED= again
	RUNS=$${RUNS:-1000000} $(CARGO) test --locked --release --test fuzz -- --nocapture

sim-planted: ## plants mistakes in a copy of the sources; the simulation must find each
	redis-compat-tests/planted/run.py

compat-long: build test-tools ## the long forms: 1,000,000 compared commands, 100,000 malformed requests, 100,000 keys moved, processes that stand still, are cut off or die, 100,000 races
	python3 redis-compat-tests/differential/run.py --commands 1000000
	python3 redis-compat-tests/malformed/run.py --inputs 100000
	python3 redis-compat-tests/moves/run.py --keys 100000
	python3 redis-compat-tests/moves/pauses.py
	python3 redis-compat-tests/leases/run.py --rounds 50
	python3 redis-compat-tests/failover/run.py --rounds 50
	python3 redis-compat-tests/failover/run.py --rounds 20 --nodes 5
	python3 redis-compat-tests/zones/run.py --rounds 5
	python3 redis-compat-tests/hundred/run.py
	python3 redis-compat-tests/chaos/run.py --runs 100 --seconds 20
	python3 redis-compat-tests/chaos/run.py --runs 20 --seconds 20 --acknowledge quorum+fsync
	python3 redis-compat-tests/chaos/run.py --runs 20 --seconds 20 --nodes 5
	python3 redis-compat-tests/restarts/run.py --rounds 10
	python3 redis-compat-tests/restarts/run.py --rounds 3 --cases rolling
	python3 redis-compat-tests/crashes/run.py --rounds 500
	python3 redis-compat-tests/crashes/run.py --faults 500
	STARLING_ORDER_ROUNDS=100000 python3 redis-compat-tests/faults/run.py --only answers

bench: build test-tools ## throughput and server CPU per request beside redis-server
	python3 benches/throughput.py

bench-log: build ## SET without a log, with one synced each second, and before each reply, beside redis-server
	python3 benches/log.py

bench-copies: build test-tools ## SET with copies and with acknowledgement by quorum, beside redis-server with a replica and WAIT
	python3 benches/copies.py

bench-saving: build ## BGSAVE of 5,000,000 keys under load and loading them, beside redis-server
	python3 benches/saving.py

bench-memory: build test-tools ## bytes per key beside redis-server
	python3 benches/memory.py

bench-eviction: build ## hit rate on a Zipf load and resident memory under a storm at maxmemory, beside redis-server
	python3 benches/eviction.py

bench-arguments: build test-tools ## cost per argument of requests with many, beside redis-server
	python3 benches/arguments.py

bench-instructions: build test-tools ## instructions per request, under valgrind; fails where they have grown by more than 5 %
	python3 benches/test_instructions.py
	python3 benches/instructions.py

fmt: ## format the sources
	$(CARGO) fmt

fix: ## format, and apply what clippy suggests
	$(CARGO) clippy --fix --allow-dirty --all-targets && $(CARGO) fmt

lint: ## format and clippy, nothing is changed
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs: ## write the generated pages
	STARLING_WRITE_DOCS=1 $(CARGO) test --locked --test tidy --test command_table generated

verify: lint test bench-instructions ## what CI runs

memcheck: test-tools ## the files with unsafe code, under valgrind
	redis-compat-tests/memcheck.sh

clean: ## remove what was built
	$(CARGO) clean && rm -rf redis-compat-tests/.work

crashes-long: ## the log on a disk that crashes and fails: 10,000 lives, from STARLING_SEED on
	$(CARGO) test --locked --release --lib what_was_kept_comes_back_many_times -- --ignored --nocapture

.PHONY: help build run demo check test-tools unit compat compat-long test fuzz sim sim-long sim-planted crashes-long bench bench-log bench-copies bench-saving bench-memory bench-eviction bench-arguments bench-instructions fmt fix lint docs verify memcheck clean
