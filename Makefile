# Needs Rust, compilers for C and C++, and GNU make; the tests need more, which tests/setup.sh finds or installs.
PORT ?= 6379

.PHONY: run test lint fmt bench setup

run:
	mkdir -p data
	cargo build --release
	./target/release/anteroom --config conf/anteroom.toml --port $(PORT)

test: setup lint
	cargo test --quiet

setup:
	bash tests/setup.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

fmt:
	cargo fmt

bench:
	cargo bench --bench compare
	cargo bench --bench eviction
	cargo bench --bench journal
	cargo bench --bench ratelimit -- --run
	cargo bench --bench writebehind -- --run
	cargo bench --bench upstream -- --run
