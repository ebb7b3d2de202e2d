# SPDX-License-Identifier: GPL-2.0
# A thin front for rig/rig, which does the work: every target is one call of it.

RIG := "$(CURDIR)/rig/rig"

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-mutations bench fuzz check tools fetch tree patches kernel kernel-debug qemu guest shell clean

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' "$(CURDIR)/Makefile" | expand -t 22

demo: ## RDMA on GPU memory with perftest, peer to peer and not, and what the devices say about it
	@$(RIG) demo

test: ## everything that CI runs: checks, device tests, guest tests on the debug kernel
	@$(RIG) test

test-full: ## make test and the long tests
	@$(RIG) test --full

test-mutations: ## prove that the tests fail when the series is broken (tests/mutations)
	@$(RIG) mutations

bench: ## measure, beside targets; the report is build/bench/report.html
	@$(RIG) bench

SECONDS ?= 600
fuzz: ## random use of the device models under AddressSanitizer, SECONDS=600
	@$(RIG) fuzz --seconds $(SECONDS)

check: ## only the checks that need no guest
	@$(RIG) check

tools: ## install the build tools that are missing
	@$(RIG) tools

fetch: ## download and verify every pinned input
	@$(RIG) fetch

tree: ## make build/linux: the base kernel with linux/patches applied
	@$(RIG) tree

patches: ## write the commits of build/linux back to linux/patches
	@$(RIG) patches

kernel: ## build the release kernel
	@$(RIG) build kernel

kernel-debug: ## build the debug kernel
	@$(RIG) build kernel --kernel debug

qemu: ## build QEMU with our devices
	@$(RIG) build qemu

guest: ## build the guest image
	@$(RIG) build guest

shell: ## a shell in a guest of the topology "switch" (Ctrl-A x quits)
	@$(RIG) shell switch

clean: ## delete build/ (refused while it holds kernel work that is not in linux/patches)
	@$(RIG) clean
