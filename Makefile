# SPDX-License-Identifier: MIT
# `make help` lists what there is. Every target takes KERNELS=NAME, the kernel variant to bind.

KERNELS ?= auto
MODEL   ?= cnn
VARIANTS := $(shell sed -n 's/^CK_CONV[A-Z_]*(\([a-z0-9_]*\))/\1/p' CKernels/include/variants.def) auto

ifeq ($(filter $(KERNELS),$(VARIANTS)),)
  $(error KERNELS=$(KERNELS): no such kernel variant; there are: $(VARIANTS))
endif

# The variant is a package trait. The build system sees it change and rebuilds what depends on it.
TRAITS := $(if $(filter-out auto,$(KERNELS)),--traits $(KERNELS))
SWIFT  := swift
BUILD  := $(SWIFT) build -c release $(TRAITS) --product stridenet
BINARY := .build/release/stridenet
TEST   := $(SWIFT) test --disable-xctest $(TRAITS)

# For programs in C alone, without Swift and the package manager.
KERNELS_IN_C := -gdwarf-4 -O2 -Wall -Wextra -Werror -ICKernels/include $(wildcard CKernels/*.c)
CHECK_IN_C := $(KERNELS_IN_C) $(wildcard Tests/KernelCheck/*.c)

.DEFAULT_GOAL := help
.PHONY: help setup build install uninstall run wasm serve test random fuzz bench bench-machines bench-peers bench-blas bench-speedrun bench-page bench-seeds reproduce profile format lint sanitize isa pictures mpi check-mpi \
  check arm64 memcheck faults dependant docs clean

## help: this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | sed 's/^\([a-z0-9-]*\): /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  KERNELS=NAME     one of: $(VARIANTS)"

## setup: check the toolchain and headers; install what is missing (Debian, root) or say how
setup:
	@sh Sources/setup.sh

## build: the release build
build: setup
	$(BUILD)

## mpi: the release build for several processes: mpirun -n 4 .build-mpi/release/stridenet train vgg
mpi:
	@sh Sources/setup.sh $$(pkg-config --exists ompi-c 2>/dev/null || echo libopenmpi-dev) \
	  $$(command -v mpirun >/dev/null || echo openmpi-bin)
	$(SWIFT) build -c release --traits MPI --scratch-path .build-mpi --product stridenet

## check-mpi: trainings by several processes, on several hosts, stopped, killed and cut off (minutes)
check-mpi: mpi
	@bash Tests/MPI/mpi.sh .build-mpi/release/stridenet $(wildcard $(BINARY))

# Where `make install` puts things; DESTDIR, for packagers, goes before all of it.
PREFIX ?= /usr/local
INSTALLED = bin/stridenet share/man/man1/stridenet.1 \
  share/bash-completion/completions/stridenet share/zsh/site-functions/_stridenet \
  share/fish/vendor_completions.d/stridenet.fish

## install: what is built, its manual page and completions for shells (PREFIX=/usr/local, DESTDIR=)
install:
	@[ -x $(BINARY) ] || { sh Sources/setup.sh && $(BUILD); }
	@sh Sources/install.sh $(BINARY) "$(DESTDIR)$(PREFIX)" $(INSTALLED)

## uninstall: remove what install put there (PREFIX=, DESTDIR= as then)
uninstall:
	cd "$(DESTDIR)$(PREFIX)" && rm -f $(INSTALLED)

## run: train the CNN on the digits that are in the package
run: build
	$(BINARY) train cnn --data sample --epochs 5

# The kernels for pages without a server: page.c's functions and these. What was built is in the
# package; a test holds it to the sources by their digest.
WASM_SOURCES = $(sort $(wildcard CKernels/*.* CKernels/include/* Sources/Pages/wasm/*))
WASM_CLANG = $(firstword $(foreach c,clang /usr/bin/clang,$(if $(shell $c --print-targets 2>&1 | grep wasm32),$c)))
WASM_EXPORTS = __heap_base ck_conv_variant_at ck_conv_forward ck_conv_input_gradient \
  ck_conv_weight_gradient ck_conv_workspace ck_pool_variant_at ck_softmax_forward \
  ck_softmax_backward ck_softmax_cross_entropy

## wasm: the kernels as WebAssembly, which pages without a server run (after a change in CKernels)
wasm:
	@[ -n "$(WASM_CLANG)" ] && command -v wasm-ld >/dev/null || sh Sources/setup.sh clang lld
	$(WASM_CLANG) --target=wasm32 -msimd128 -mbulk-memory -O3 -fno-math-errno -Wall -Wextra -Werror \
	  -DSOURCES='"$(shell cat $(WASM_SOURCES) | sha256sum | cut -c 1-64)"' \
	  -nostdlib -nostdlibinc -ISources/Pages/wasm -ICKernels/include $(filter %.c,$(WASM_SOURCES)) \
	  -Wl,--no-entry,--stack-first,-zstack-size=1048576,--gc-sections,--strip-all,--import-undefined \
	  $(WASM_EXPORTS:%=-Wl,--export=%) -o Sources/Pages/files/kernels.wasm
	@chmod -x Sources/Pages/files/kernels.wasm

## serve: a page to draw digits in and watch them pass through the network (PORT=8080)
serve: build
	$(BINARY) serve --data sample --port $(or $(PORT),8080)

## test: all tests, in debug and in release (kernels are only optimised there)
test: setup
	$(TEST)
	$(TEST) -c release

# With SANITIZE, a build of its own in which the address sanitizer looks on, and in C the one for
# undefined behaviour. Leaks are Foundation's.
RANDOM_BUILD := $(SWIFT) build -c release $(TRAITS) --product random-networks $(if $(SANITIZE), \
  --sanitize=address --scratch-path .build-sanitized -Xcc -fsanitize=undefined \
  -Xcc -fno-sanitize-recover=undefined)

## random: random networks against double precision (N=200, SEED=1, CASE=, PRECISION=, ISA=, SANITIZE=1)
random: setup
	$(RANDOM_BUILD)
	@ASAN_OPTIONS=detect_leaks=0 "$$($(RANDOM_BUILD) --show-bin-path)/random-networks" \
	  $(if $(CASE),--case '$(CASE)',--count $(or $(N),200) --seed $(or $(SEED),1) --work $(or $(WORK),1000000) \
	  $(if $(PRECISION),--precision $(PRECISION)) $(if $(ISA),--isa $(ISA)))

## fuzz: feed all readers with made-up inputs under AddressSanitizer (SECONDS=60 in all; TARGET=)
fuzz: setup
	@sh Tests/Fuzz/fuzz.sh $(or $(SECONDS),60) $(TARGET)

## bench: time all kernels, networks and sizes against this machine's measured peak
bench: build
	$(BINARY) bench all --svg .build/bench.svg

## bench-machines: training steps of N=2 processes of one thread, what travels, and how many would pay (MODELS=)
bench-machines: mpi
	mpirun --bind-to none -n $(or $(N),2) .build-mpi/release/stridenet bench machines $(MODELS) \
	  $(if $(JSON),--json,--svg .build-mpi/machines.svg)

## bench-peers: alternate with PyTorch, ONNX Runtime, OpenVINO and others, float32 and bf16; table and plot (PYTHON=, which has them; MODELS=, IMAGES=, ROUNDS=, DATA=, AVX2=1)
bench-peers: build
	python3 Benchmarks/bench_peers.py --program $(BINARY) $(if $(PYTHON),--python $(PYTHON)) \
	  $(if $(MODELS),--models $(MODELS)) $(if $(IMAGES),--images $(IMAGES)) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(DATA),--data $(DATA)) $(if $(AVX2),--avx2)

## bench-blas: alternate with OpenBLAS on one thread (CORE=Zen: with those kernels)
bench-blas: setup
	@echo '#include <cblas.h>' | clang -fsyntax-only -x c - 2>/dev/null || sh Sources/setup.sh libopenblas-dev
	@mkdir -p .build
	clang $(KERNELS_IN_C) Benchmarks/openblas.c -lopenblas -lm -o .build/openblas
	@# Settings left in the environment could slow it down unseen.
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(if $(CORE),OPENBLAS_CORETYPE=$(CORE)) .build/openblas

## bench-speedrun: the speedrun recipe, alternating with PyTorch (PYTHON=, which has torch; DATA=)
bench-speedrun: build
	$(or $(PYTHON),python3) Benchmarks/speedrun.py $(BINARY) $(or $(DATA),$(HOME)/.cache/stridenet/mnist)

## bench-page: the exported page in Chromium: a stroke's way to its percentages, and training
bench-page: build
	python3 Benchmarks/page.py $(BINARY)

## bench-seeds: what rounding does to accuracy, auto's and bf16's: 20 trainings each way (DATA=, SEEDS=)
bench-seeds: build
	python3 Benchmarks/seeds.py $(BINARY) $(or $(DATA),mnist) $(if $(SEEDS),--seeds $(SEEDS))

## reproduce: the accuracies that the README claims, measured again (QUICK=1: in a minute)
reproduce: build
	@sh Benchmarks/reproduce.sh $(BINARY) $(if $(QUICK),quick)

## profile: where the time goes: perf record of a training run (MODEL=cnn), the hottest loop
profile: build
	@sh Benchmarks/profile.sh $(BINARY) $(MODEL)

## format: bring all sources into shape
format:
	@command -v clang-format >/dev/null || sh Sources/setup.sh clang-format
	$(SWIFT) format -i -r Package.swift Sources Tests Examples
	clang-format -i $$(git ls-files '*.c' '*.h')

## lint: fail where `make format` would change something
lint:
	@command -v clang-format >/dev/null || sh Sources/setup.sh clang-format
	$(SWIFT) format lint --strict -r Package.swift Sources Tests Examples
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')

## check: each kernel against its definition, in C, with each instruction set (seconds; TIME=all or TIME=convolution: timed instead)
check: setup
	@mkdir -p .build
	clang $(CHECK_IN_C) -lm -o .build/check
	.build/check $(if $(TIME),time $(filter-out all,$(TIME)))

## arm64: the same check compiled for 64-bit ARM and run by an emulator
arm64: setup
	@[ -e /usr/aarch64-linux-gnu/lib/libc.a ] && command -v qemu-aarch64 >/dev/null \
	  || sh Sources/setup.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	@mkdir -p .build
	clang --target=aarch64-linux-gnu -static -fuse-ld=lld $(CHECK_IN_C) -lm -o .build/check-arm64
	qemu-aarch64 .build/check-arm64 neon

## memcheck: the same check under valgrind (which knows no AVX-512)
memcheck: check
	@command -v valgrind >/dev/null || sh Sources/setup.sh valgrind
	valgrind -q --error-exitcode=1 .build/check --bare

## faults: trainings that are killed, or whose disk, files or memory fail (N=50, SEED=1, ROUND=)
faults: build
	clang -O2 -Wall -Wextra -Werror -shared -fPIC Tests/Faults/shim.c -ldl -o .build/fault-shim.so
	@sh Tests/Faults/faults.sh $(BINARY) .build/fault-shim.so $(or $(N),50) $(or $(SEED),1) $(ROUND)

## isa: the check and all tests once more with each instruction set that the processor has
isa: build check
	@for set in avx512 avx2 neon baseline; do \
	  if STRIDENET_ISA=$$set $(BINARY) kernels >/dev/null 2>&1; then \
	    echo "== $$set"; STRIDENET_ISA=$$set $(TEST) -c release || exit 1; \
	  else echo "== $$set: not on this processor"; fi; done

# The C library's part of the undefined-behaviour sanitizer comes with the toolchain.
UBSAN = $(shell clang -print-resource-dir)/lib/linux/libclang_rt.ubsan_standalone-$(shell uname -m).a

# Sanitizers need more memory than the limits that these tests are run under.
UNLIMITED = --skip largePicturesTakeLittleMemory --skip ServeTests/memory

## sanitize: the tests under the address, undefined-behaviour and thread sanitizers
sanitize: setup
	@# Foundation, starting a process, copies a directory entry's whole buffer, behind its end too.
	mkdir -p .build-asan && echo interceptor_via_fun:findMaximumOpenFromProcSelfFD > .build-asan/known
	ASAN_OPTIONS=detect_leaks=0:suppressions=$(CURDIR)/.build-asan/known SWIFT_BACKTRACE=enable=no \
	  $(TEST) --sanitize=address --scratch-path .build-asan $(UNLIMITED)
	SWIFT_BACKTRACE=enable=no \
	  $(TEST) --scratch-path .build-ubsan -Xcc -fsanitize=undefined \
	  -Xcc -fno-sanitize-recover=undefined \
	  -Xlinker --whole-archive -Xlinker $(UBSAN) -Xlinker --no-whole-archive
	@# This one needs larger files, and the plain kernels are too slow with it.
	SWIFT_BACKTRACE=enable=no \
	  $(TEST) --sanitize=thread --scratch-path .build-tsan $(UNLIMITED) \
	  --skip CommandLineRefusals --skip noHalfPicture --skip PlainTests

## dependant: build and run two programs that have this package, and its core alone, as a dependency
dependant: setup
	sh Tests/dependant.sh

## pictures: draw the articles' pictures again, from what their examples compute and what Benchmarks/*.jsonl keep
pictures: build
	$(BINARY) pictures Sources/StrideNet/StrideNet.docc/Resources Benchmarks/roofline.jsonl \
	  Benchmarks/machines.jsonl

## docs: the documentation as a web site in .build/docs, offline (BASE=, its path on a server)
docs: setup
	$(SWIFT) build --product stridenet
	@sh Sources/docs.sh .build/docs $(BASE)

## clean: remove all build folders
clean:
	rm -rf .build .build-*
