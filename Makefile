# What people type. `make help` lists the targets.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
INSTALL ?= install

LIBRARY := target/release/libsopin.so
libdir := $(DESTDIR)$(PREFIX)/lib
docdir := $(DESTDIR)$(PREFIX)/share/doc/sopin
DOCUMENTS := LICENSE README.md CHANGELOG.md

.PHONY: build demo test bench rewriters miri lint clean install uninstall help environments

build: ## build target/release/libsopin.so (the default)
	$(CARGO) build --release --workspace

demo: build ## a busy gunicorn while its shared objects are rewritten, without and with sopin
	examples/gunicorn/demo

# The environment's py-spy, but the machine's own python3.
test: build environments ## run every test against the release build
	PATH="$$PATH:$(CURDIR)/target/test-python/bin" $(CARGO) test --workspace --no-fail-fast

bench: build environments ## measure what protection costs; also written to target/bench.md
	$(CARGO) bench --bench cost

rewriters: build environments ## try everything that rewrites shared objects; makes docs/rewriters.md anew
	SOPIN_NEW_TABLE=1 $(CARGO) test --test rewriters
	cp target/rewriters.md docs/rewriters.md

miri: ## tests of sopin-core in the interpreter that finds undefined behaviour, where a nightly has it
	scripts/miri

lint: build environments ## formatting, lints of every language, exported symbols
	scripts/lint

environments: # what the tests and the benchmark run on, under target/
	scripts/test-environments

clean: ## remove everything that was built
	$(CARGO) clean

# install(1) removes the old file first: a new inode, as it should always be.
install: ## install the library and its documents (PREFIX, DESTDIR)
	@test -f $(LIBRARY) || { echo 'run make first' >&2; exit 1; }
	$(INSTALL) -d '$(libdir)' '$(docdir)'
	$(INSTALL) -m 755 $(LIBRARY) '$(libdir)/libsopin.so'
	$(INSTALL) -m 644 $(DOCUMENTS) '$(docdir)'

uninstall: ## remove what install installed
	rm -f '$(libdir)/libsopin.so' $(DOCUMENTS:%='$(docdir)/%')
	-rmdir '$(docdir)'

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
