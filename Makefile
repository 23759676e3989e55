# Two commands: `make run` builds mfserv and runs its main job in the background,
# `make test` installs what the tests need and runs all of them.

HOME_DIR ?= $(CURDIR)/run
PORT ?= 18868
CARGO ?= cargo
# Tests wait for processes more than they compute.
TEST_THREADS = $(shell n=$$(nproc); if [ "$$n" -gt 4 ]; then echo "$$n"; else echo 4; fi)
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: run test check build stop

run: build
	@HOME_DIR="$(HOME_DIR)" PORT="$(PORT)" scripts/samples "$(abspath $(TARGET))/release/mfserv"

build:
	@scripts/need run
	$(CARGO) build --release --locked -p mfserv

stop:
	@"$(abspath $(TARGET))/release/mfserv" --home "$(HOME_DIR)" stop

test: check
	@rm -f "$(TARGET)/skipped-tests"
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$(TEST_THREADS)} $(CARGO) test --locked --workspace
	@sort -u "$(TARGET)/skipped-tests" 2>/dev/null || true

check:
	@scripts/need test
	@scripts/check fmt --all --check
	@scripts/check clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) run --quiet --locked -p xtask -- tidy
