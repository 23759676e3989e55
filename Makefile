# Two commands: `make run` builds mfserv and runs its main job in the background,
# `make test` installs what the tests need and runs all of them.

HOME_DIR ?= $(CURDIR)/run
PORT ?= 18868
CARGO ?= cargo
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
	$(CARGO) test --locked --workspace

check:
	@scripts/need test
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --all --check; \
	else echo "- rustfmt is not installed: the format is not checked"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; \
	then $(CARGO) clippy --locked --workspace --all-targets -- -D warnings; \
	else echo "- clippy is not installed: the lints are not checked"; fi
