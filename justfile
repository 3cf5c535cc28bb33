# Recipes for people who work on zhaul. `just` lists them.

default:
    @just --list

# What .ci/run checks before the tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

# All tests; the last lines say what could not run here, and why
test *args:
    cargo test --workspace --locked -- --show-output {{args}}

# Everything that CI runs
ci:
    .ci/run

# Tests in a guest kernel: `just lab`, `just lab copies`, `just lab --list` (lab/README.md)
lab *args:
    lab/run {{args}}

# Every order of events that the pool of buffers can meet (loom), and its unsafe code in Miri (nightly)
model:
    RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --locked -p zhaul-sys --lib slots::model
    CARGO_TARGET_DIR=target/miri cargo +nightly miri test --locked -p zhaul-sys --lib arena

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# One fuzz target for a minute (needs cargo-fuzz and a nightly toolchain): just fuzz range
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# zhaul serve, nginx and the floor side by side: `just bench-serve --quick`, `just bench-serve --check`
bench-serve *ARGS: build-bench
    target/release/zhaul-bench serve {{ARGS}}

# hot latency beside cold files and cold lookups (root: throttles a disk through a cgroup)
bench-cold *ARGS: build-bench
    target/release/zhaul-bench cold {{ARGS}}

# memory of 10,000 idle connections, of a 4 GiB file, of 100 ranges
bench-idle *ARGS: build-bench
    target/release/zhaul-bench idle {{ARGS}}

# zhaul proxy, HAProxy, nginx stream and bare relay loops: `just bench-proxy --check`
bench-proxy *ARGS: build-bench
    target/release/zhaul-bench proxy {{ARGS}}

# all three in one report: `just bench --check --json bench.json --markdown bench.md`
bench *ARGS: build-bench
    target/release/zhaul-bench all {{ARGS}}

[private]
build-bench:
    cargo build --release -p zhaul-cli -p zhaul-bench
