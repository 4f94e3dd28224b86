# make test      everything a change must pass; installs what is missing
# make sim       simulated crashes and faults: SEEDS=n seeds from FROM=k on, or SEED=k alone with its last EVENTS=n
# make kills    SIGKILLs of the real process behind a broker that misbehaves: KILLS=n at any moment, CALLS=n at durable system calls,
#               CUTS=n of the power of its disk; SEED=k
# make failpoints  ends the real process between any two durable steps of journal, start, seal and move
# make mutants   shows that the simulation finds each planted bug, or BUG=Name alone; half an hour
# make fuzz      random bytes through decoders, topics and the readers of journal, records and pipeline files, RUNS=n of each; new finds stay in the tools' cache
# make kafka     a Kafka broker on port 9092 until ^C, for pipelines of your own; its data lies in target/kafka
# make demo      an embedded broker, 200 devices, one SQL table over three tiers
# make bench-w1  CPU seconds per million readings, readings a second, peak memory
# make bench     one page with all that is to be reached, measured here, and what others do: bench/results/<day>-<commit>.html
# make load      a fleet against a real Mosquitto, as the files of bench/scenarios say, and a page about it; SCENARIO=burst for one alone, ARGS="--lasting 8h"
# make bench-durability  what fsync and epochs of 1 s cost against neither, and how long acks take; ARGS="--messages 400000"
# make bench-operators  rows a second and CPU seconds per million of the operators on Arrow input; ARGS="--only dedupe"
# make bench-bytes  bytes a reading, in segments and in cold files, by column; ARGS="--decimals"
# make bench-queries  queries of 50 million readings beside DuckDB on the same rows; ARGS="--readings 5000000"
# make audit     advisories, bans, licences and sources of the dependencies

target := $(or $(CARGO_TARGET_DIR),target)
tools := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate/tools
export PATH := $(tools)/bin:$(PATH):/usr/sbin:/sbin

.PHONY: test setup lint sim kills failpoints mutants fuzz kafka demo bench load bench-w1 bench-durability bench-operators bench-bytes bench-queries audit

test: setup lint
	cargo build --workspace --bins
	cargo test --workspace

setup:
	tests/setup/install.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo deny --log-level error check bans licenses sources

sim:
	SEEDS=$(SEEDS) SEED=$(SEED) FROM=$(FROM) EVENTS=$(EVENTS) cargo test --workspace --test sim every_seed -- --nocapture

kills:
	KILLS=$(or $(KILLS),200) CALLS=$(or $(CALLS),200) CUTS=$(or $(CUTS),50) SEED=$(or $(SEED),1) cargo test --workspace --test e2e kills:: -- --nocapture

# The features of these two rebuild our own crates, in test builds alone; no build of the product has them.
failpoints:
	SEED=$(or $(SEED),1) cargo test --workspace --features tests/failpoints --test e2e failpoints:: -- --nocapture

mutants:
	BUG=$(BUG) cargo test --workspace --features tests/planted --test sim every_planted -- --nocapture

# No sanitizer, so that no nightly compiler is needed. Four are a crate of their own, outside of the workspace; the one of pipeline files needs
# DataFusion, which is not built again for it.
fuzzing = -runs=$(or $(RUNS),1000000) -timeout=1 -rss_limit_mb=2048 -print_final_stats=1
corpus := $(abspath $(tools)/../corpus)
fuzz:
	command -v cargo-fuzz >/dev/null || cargo install --locked --root $(tools) cargo-fuzz
	for target in decode topic journal record; do \
		mkdir -p $(corpus)/$$target && \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(tools)/../fuzz -s none $$target $(corpus)/$$target tests/fuzz/seeds/$$target -- $(fuzzing) || exit 1; \
	done
	mkdir -p $(corpus)/toml
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/fuzz/instrument.sh cargo test --workspace --features tests/fuzz --test fuzz-toml -- \
		$(corpus)/toml $(CURDIR)/tests/fuzz/seeds/toml $(CURDIR)/config/pipelines $(fuzzing) -max_len=2048

kafka: setup
	tests/setup/kafka/broker.sh 9092 9093 $(target)/kafka auto.create.topics.enable=true num.partitions=4

# The demo takes the dev profile: a cold build in minutes; the release build is the fast one.
demo:
	@echo "demo: a cold build takes about 10 minutes on two cores, the demo itself 30 seconds"
	cargo build --workspace --bins
	$(target)/debug/tidegate demo

venv := $${TIDEGATE_VENV:-$${XDG_CACHE_HOME:-$$HOME/.cache}/tidegate/venv}

bench: setup
	@echo "bench: a cold release build takes about 25 minutes on two cores, the measurements 20; needs 10 GB of disk and 6 GB of memory"
	cargo build --release --package pipelines --bin tidegate --package bench --bin bench
	flink=$$(bench/peers/flink.sh) && $(venv)/bin/python bench/report.py --tidegate $(target)/release/tidegate --bench $(target)/release/bench \
		--folder $(target)/bench --flink $$flink --bytes "cargo bench --quiet --package bench --bench bytes --" $(ARGS)

load: setup
	@echo "load: a cold release build takes about 25 minutes on two cores, all scenarios 15"
	cargo build --release --package pipelines --bin tidegate
	ulimit -n 8192 && $(venv)/bin/python bench/load.py $(or $(SCENARIO),all) --tidegate $(target)/release/tidegate --folder $(target)/load $(ARGS)

bench-w1:
	@echo "bench-w1: a cold release build takes about 25 minutes on two cores, the input 1 GB of disk"
	cargo build --release --package pipelines --bin tidegate --package bench --bin bench
	$(target)/release/bench file --tidegate $(target)/release/tidegate --folder $(target)/bench-w1

bench-durability:
	@echo "bench-durability: a cold release build takes about 25 minutes on two cores, the measurement 10; needs Mosquitto, 2 GB of memory for it, 5 GB of disk"
	cargo build --release --package pipelines --bin tidegate --package bench --bin bench
	$(target)/release/bench durability --tidegate $(target)/release/tidegate --folder $(target)/bench-durability $(ARGS)

bench-operators:
	@echo "bench-operators: a cold release build takes about 25 minutes on two cores"
	cargo bench --package bench --bench operators -- $(ARGS)

bench-bytes:
	@echo "bench-bytes: a cold release build takes about 25 minutes on two cores"
	cargo bench --package bench --bench bytes -- $(ARGS)

bench-queries: setup
	@echo "bench-queries: a cold release build takes about 25 minutes on two cores, the measurement 10; 15 GB of disk"
	cargo build --release --package pipelines --bin tidegate
	$(venv)/bin/python bench/peers/queries.py --tidegate $(target)/release/tidegate --folder $(target)/bench-queries $(ARGS)

audit: setup
	cargo deny check bans licenses sources
	cargo deny check advisories || echo "audit: advisories were found, or their database is out of reach: see above"
