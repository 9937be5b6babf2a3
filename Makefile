# The commands that people type. `make help` lists the targets.

CARGO ?= cargo
MINUTES ?= 10
RESETS ?= 50
PINS ?= 1000
WHAT ?= all
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
INSTALL ?= install

LIBRARY := target/release/libsopin.so
COMMAND := target/release/sopin
# The command that prints the completions, where COMMAND is for another architecture.
COMPLETING := $(COMMAND)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MAJOR := $(firstword $(subst ., ,$(VERSION)))
libdir := $(DESTDIR)$(LIBDIR)
includedir := $(DESTDIR)$(PREFIX)/include
bindir := $(DESTDIR)$(PREFIX)/bin
mandir := $(DESTDIR)$(PREFIX)/share/man
bashdir := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
docdir := $(DESTDIR)$(PREFIX)/share/doc/sopin
DOCUMENTS := LICENSE README.md CHANGELOG.md SECURITY.md
# Without what only contributors read.
GUIDES := $(notdir $(filter-out docs/releasing.md docs/memory-order.md,$(wildcard docs/*.md docs/*.svg)))
PAGES1 := $(notdir $(wildcard man/*.1))
PAGES7 := $(notdir $(wildcard man/*.7))

.PHONY: build demo test bench soak faults foreign rewriters pin-torture resets lab dist-binaries dist dist-check miri lint man header release-check clean help environments
.PHONY: install install-library install-command uninstall uninstall-library uninstall-command

build: ## build target/release/libsopin.so and target/release/sopin (the default)
	$(CARGO) build --release --workspace

demo: build ## a busy gunicorn while its shared objects are rewritten, without and with sopin, and pinned
	examples/gunicorn/demo

# The tests use py-spy from the environment, but the machine's own python3.
test: build environments ## run every test against the release build
	PATH="$$PATH:$(CURDIR)/target/test-python/bin" $(CARGO) test --workspace --no-fail-fast

bench: build environments ## measure what protection costs; writes docs/benchmarks.* and README's table
	$(CARGO) bench --bench cost

soak: build ## gunicorn for MINUTES (10) under a rewriter: what fails, dies or grows
	examples/gunicorn/soak --minutes $(MINUTES)

faults: build ## every system call of the library fails with every error, everywhere; makes docs/faults.md anew
	SOPIN_EVERY_FAULT=1 $(CARGO) test --test faults
	cp target/faults-summary.md docs/faults.md

foreign: build ## programs of other projects, without and with the library; installs them if it can
	scripts/foreign-programs
	SOPIN_EVERY_PROGRAM=1 $(CARGO) test --test foreign

rewriters: build environments ## try everything that rewrites shared objects; makes docs/rewriters.md anew
	SOPIN_NEW_TABLE=1 $(CARGO) test --test rewriters
	cp target/rewriters.md docs/rewriters.md

pin-torture: build environments ## running programs are pinned PINS (1000) times in each trial
	SOPIN_PINS=$(PINS) $(CARGO) test --test pin

resets: build ## machines in QEMU are reset RESETS (50) times while stores are filled; makes docs/power-loss.md anew
	scripts/lab-kernel 6.1
	SOPIN_RESETS=$(RESETS) $(CARGO) test --test lab resets
	cp target/lab/resets.md docs/power-loss.md

lab: build ## suites on other kernels, aarch64, other glibcs, musl; WHAT=kernel-5.10, arm64, glibc-2.31...; makes docs/lab.md anew
	scripts/lab $(WHAT)

dist-binaries: ## target/dist: the library and the command that are published, for x86-64 and aarch64
	scripts/dist-binaries

dist: ## target/packages: archives, deb, rpm and wheels of these files, SHA256SUMS, an SBOM
	scripts/dist

# These tests only read the file, so it may be of any architecture.
dist-check: build ## build target/dist and target/packages twice and compare the bytes, and test what the files promise
	scripts/dist --check
	$(CARGO) test --test dist
	SOPIN_TEST_LIBRARY=target/dist/x86_64/libsopin.so $(CARGO) test --test symbols --test imports --test branch_targets
	SOPIN_TEST_LIBRARY=target/dist/aarch64/libsopin.so $(CARGO) test --test symbols --test imports
	scripts/package-roots bookworm trixie bullseye
	$(CARGO) test --test packages

miri: ## tests of sopin-core and sopin-store in the interpreter that finds undefined behaviour, if a nightly toolchain has it
	scripts/miri

lint: build environments ## formatting, lints of every language, exported symbols
	scripts/lint

man: ## write man/*.1 anew from --help; man/libsopin.7 is written by hand
	SNAPSHOTS=overwrite $(CARGO) test -p sopin-cli --bin sopin manual::

header: ## write include/sopin.h anew after a change of src/api.rs
	SOPIN_WRITE_HEADER=1 $(CARGO) test --test header

release-check: build ## check what docs/releasing.md wants to be true of a release
	scripts/release-check

environments: # what the tests and the benchmark run on, under target/
	scripts/test-environments

clean: ## remove everything that was built
	$(CARGO) clean

# install(1) removes the old file first, so the new file has a new inode, as it always
# should.
install: install-library install-command ## install everything (PREFIX, LIBDIR, DESTDIR)
	$(INSTALL) -d '$(docdir)/docs'
	$(INSTALL) -m 644 $(DOCUMENTS) '$(docdir)'
	$(INSTALL) -m 644 $(GUIDES:%=docs/%) '$(docdir)/docs'

install-library:
	@test -f $(LIBRARY) || { echo 'run make first' >&2; exit 1; }
	$(INSTALL) -d '$(libdir)/pkgconfig' '$(includedir)'
	$(INSTALL) -m 755 $(LIBRARY) '$(libdir)/libsopin.so.$(VERSION)'
	ln -sfn libsopin.so.$(VERSION) '$(libdir)/libsopin.so.$(MAJOR)'
	ln -sfn libsopin.so.$(MAJOR) '$(libdir)/libsopin.so'
	$(INSTALL) -m 644 include/sopin.h '$(includedir)'
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' sopin.pc.in > '$(libdir)/pkgconfig/sopin.pc'
	chmod 644 '$(libdir)/pkgconfig/sopin.pc'

install-command:
	@test -x $(COMMAND) || { echo 'run make first' >&2; exit 1; }
	$(INSTALL) -d '$(bindir)' '$(mandir)/man1' '$(mandir)/man7' '$(bashdir)' '$(zshdir)' '$(fishdir)'
	$(INSTALL) -m 755 $(COMMAND) '$(bindir)/sopin'
	$(INSTALL) -m 644 $(PAGES1:%=man/%) '$(mandir)/man1'
	$(INSTALL) -m 644 $(PAGES7:%=man/%) '$(mandir)/man7'
	$(COMPLETING) completions bash > '$(bashdir)/sopin' && chmod 644 '$(bashdir)/sopin'
	$(COMPLETING) completions zsh > '$(zshdir)/_sopin' && chmod 644 '$(zshdir)/_sopin'
	$(COMPLETING) completions fish > '$(fishdir)/sopin.fish' && chmod 644 '$(fishdir)/sopin.fish'

# Then removes directories that are empty, among them those that install has made, but
# not the system's own, which may have been empty before.
uninstall: uninstall-library uninstall-command ## remove what install installed
	rm -f $(DOCUMENTS:%='$(docdir)/%') $(GUIDES:%='$(docdir)/docs/%')
	@set -- '$(docdir)/docs' '$(docdir)' '$(libdir)/pkgconfig' '$(includedir)' '$(bindir)' '$(mandir)/man1' '$(mandir)/man7' \
	    '$(bashdir)' '$(zshdir)' '$(fishdir)'; \
	case '$(DESTDIR)$(PREFIX)' in \
	/usr | /usr/local) for directory in '$(docdir)/docs' '$(docdir)'; do \
	        ! [ -d "$$directory" ] || rmdir --ignore-fail-on-non-empty "$$directory"; \
	    done ;; \
	*) for directory; do \
	        ! [ -d "$$directory" ] || \
	            (cd '$(DESTDIR)/' && rmdir -p --ignore-fail-on-non-empty "$${directory#'$(DESTDIR)'/}"); \
	    done ;; \
	esac

uninstall-library:
	rm -f '$(libdir)/libsopin.so.$(VERSION)' '$(libdir)/libsopin.so.$(MAJOR)' '$(libdir)/libsopin.so'
	rm -f '$(includedir)/sopin.h' '$(libdir)/pkgconfig/sopin.pc'

uninstall-command:
	rm -f '$(bindir)/sopin' $(PAGES1:%='$(mandir)/man1/%') $(PAGES7:%='$(mandir)/man7/%')
	rm -f '$(bashdir)/sopin' '$(zshdir)/_sopin' '$(fishdir)/sopin.fish'

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
