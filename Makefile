# SPDX-License-Identifier: GPL-2.0-or-later
# The build is meson's; this file makes each job work as the first command in a clean clone.

BUILD = build
DEPS = lab/install-deps

.PHONY: all deps demo check check-long check-kvm check-matrix bench install clean

all: deps
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) >$(BUILD).setup.log 2>&1 || \
		{ cat $(BUILD).setup.log; exit 1; }
	@rm -f $(BUILD).setup.log
	@ninja -C $(BUILD) --quiet

deps:
	@$(DEPS)

demo: all
	@demo/demo --no-build --both $(DEMO_ARGS)

check: all
	@tests/run

check-long: all
	@tests/run --long

bench: all
	@bench/bench $(BENCH_ARGS)

install: all
	@meson install -C $(BUILD) --no-rebuild

check-kvm: all
	@tests/kvm/run --build $(BUILD) $(KVM_ARGS)

check-matrix: all
	@tests/matrix/run $(MATRIX_ARGS)

clean:
	rm -rf $(BUILD)
