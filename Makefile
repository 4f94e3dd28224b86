# make test      everything a change must pass; installs what is missing
# make demo      an embedded broker, 200 devices, one SQL table over three tiers
# make bench-w1  CPU seconds per million readings, readings a second, peak memory
# make audit     advisories, bans, licences and sources of the dependencies

target := $(or $(CARGO_TARGET_DIR),target)
tools := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate/tools
export PATH := $(tools)/bin:$(PATH):/usr/sbin:/sbin

.PHONY: test setup lint demo bench-w1 audit

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

# The demo takes the dev profile: a cold build in minutes; the release build is the fast one.
demo:
	@echo "demo: a cold build takes about 10 minutes on two cores, the demo itself 30 seconds"
	cargo build --workspace --bins
	$(target)/debug/tidegate demo

bench-w1:
	@echo "bench-w1: a cold release build takes about 25 minutes on two cores, the input 1 GB of disk"
	cargo build --release --package pipelines --bin tidegate --package bench --bin bench
	$(target)/release/bench w1 --tidegate $(target)/release/tidegate --folder $(target)/bench-w1

audit: setup
	cargo deny check bans licenses sources
	cargo deny check advisories || echo "audit: advisories were found, or their database is out of reach: see above"
