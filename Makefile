# Builds, tests and compares the six stages. `make help` lists what a student
# needs, `make help-all` every target.

STAGES := 01_blocking 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et \
	06_tcp_options
# What is tested, traced and walked through: 06 is told in two programs.
NAMES := 01_blocking 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et \
	keep_alive 06_tcp_options
LATER := $(filter-out 01_blocking,$(NAMES))
REST := $(filter-out 04_epoll_lt,$(NAMES)) # which `make help` doesn't name

# The source of each, and of the one before it.
SOURCE = $(if $(filter keep_alive,$*),06_tcp_options/keep_alive.c,$*/server.c)
BEFORE_02_blocking_loop := 01_blocking/server.c
BEFORE_03_select := 02_blocking_loop/server.c
BEFORE_04_epoll_lt := 03_select/server.c
BEFORE_05_epoll_et := 04_epoll_lt/server.c
BEFORE_keep_alive := 05_epoll_et/server.c
BEFORE_06_tcp_options := 06_tcp_options/keep_alive.c

# What `make bench` measures, a part each.
PARTS := cpu idle memory calls latency

# What strace shows of a stage: the calls that its lesson is about.
# (A library makes select() and epoll_wait() of one or the other of their calls;
# ?: not every machine has both.)
CALLS := %network,close,fcntl,?select,?pselect6,epoll_create1,epoll_ctl,$\
	?epoll_wait,?epoll_pwait
ARGS :=

# The port that `make dawdlers` and `make watch` are about.
PORT := 8080

# What shows a change. Others: 'diff -y -W 165', vimdiff, delta, meld.
DIFF ?= diff -u --color=auto

# Where `make timeline` and `make film` draw. What NOTES.md shows is drawn
# INTO=tests/notes.
INTO := my

MAKEFLAGS += --no-print-directory

# The tests that take minutes.
LONG := exercises sanitized short faults hostile fuzz bench notes \
	browser lab

.PHONY: all help help-all test shake test-all test-long lint bench timeline \
	film book clean progress lab dawdlers watch $(NAMES:%=walk-%) \
	$(STAGES) keep_alive $(NAMES:%=test-%) test-upper test-project \
	$(LONG:%=test-%) $(LATER:%=diff-%) $(NAMES:%=trace-%) $(PARTS:%=bench-%)

all: $(STAGES)

$(STAGES):
	@$(MAKE) -C $@
	@echo ./$@/$@

keep_alive: 06_tcp_options
	@echo ./06_tcp_options/$@

help:
	@line() { printf '%-24s %s\n' "make $$1" "$$2"; }; \
	line 04_epoll_lt 'build a stage: 01_blocking, 02_blocking_loop,'; \
	printf '%24s %s\n' '' '03_select, 04_epoll_lt, 05_epoll_et, 06_tcp_options'; \
	line diff-04_epoll_lt 'show what it changes (also: diff-keep_alive)'; \
	line trace-04_epoll_lt 'run it under strace'; \
	line test-04_epoll_lt 'test it'; \
	line walk-04_epoll_lt 'play its walkthrough, in four terminals'; \
	line lab 'open just the four terminals'; \
	line dawdlers 'connect ten slow clients to PORT=8080'; \
	line watch 'show the connections of PORT=8080, and their cost'; \
	echo; \
	echo 'Exercises (4.1) and hunts (4.a):'; \
	line progress 'show which are done, tried, or still open'; \
	line try-4.a 'begin one'; \
	line check-4.a 'check your copy in my/'; \
	line hint-4.a 'show one more hint'; \
	line answer-4.a 'show the answer, and why it is right'; \
	echo; \
	line test 'test all stages'; \
	line bench 'measure what each way of waiting costs'; \
	line timeline 'draw how 02, 03 and 05 wait (in my/)'; \
	line book 'turn the workbook into one HTML file (in my/)'; \
	line clean 'remove what was built'; \
	line help-all 'list every target'

help-all: help
	@line() { printf '%-27s %s\n' "make $$1" "$$2"; }; \
	echo; \
	echo 'The rest:'; \
	line all 'build all six stages (so does plain make)'; \
	for s in $(REST); do line $$s 'build it'; done; \
	line help 'show what a student needs'; \
	line test-all 'run all tests, including those that take minutes'; \
	line test-long 'run only those that take minutes'; \
	for s in $(REST); do line test-$$s 'test it'; done; \
	line test-upper 'test upper_server and upper_client'; \
	line test-project 'test the Makefiles and what the stages share'; \
	line test-sanitized 'test the programs built with ASan and UBSan'; \
	line test-short 'test while each recv and send moves one byte'; \
	line test-faults 'make each system call fail'; \
	line test-hostile 'test with hostile clients'; \
	line test-fuzz 'test with mutated requests'; \
	line test-bench 'test that the measurements work'; \
	line test-notes 'test what NOTES.md and README.md show'; \
	line shake 'run tests and checks under load, for five minutes'; \
	line test-browser 'test with a browser as the client'; \
	for s in $(REST:01%=); do line diff-$$s 'show what it changes'; done; \
	for s in $(REST); do line trace-$$s 'run it under strace'; done; \
	line again-4.a 'begin again; the old copy stays, as my/4.a.1'; \
	line keep-4.a 'check it each time the file is saved'; \
	line 'progress FORM=tab' 'show progress as tab-separated lines'; \
	line test-exercises 'test the exercises and the hunts'; \
	for s in $(REST); do line walk-$$s 'play its walkthrough'; done; \
	line test-lab 'test the lab and its walks'; \
	for p in $(PARTS); do line bench-$$p 'measure that part alone'; done; \
	line film 'draw how 04 and 05 wait, step by step (in my/)'; \
	line lint 'look for faults without running anything'

test: all
	@tests/clean tests/need test
	@tests/clean tests/run $(NAMES) upper project

$(NAMES:%=test-%): test-%: %
	@tests/clean tests/need test
	@tests/clean tests/run $*

test-upper test-project: test-%: all
	@tests/clean tests/need test
	@tests/clean tests/run $*

test-all: test test-long

test-long: $(LONG:%=test-%)

test-sanitized test-short: test-%: all
	@tests/clean tests/need test
	@tests/clean tests/$* $(NAMES) upper

test-faults: all
	@tests/clean tests/need test long
	@SUITES=faults tests/clean tests/run $(NAMES) upper

test-hostile: all
	@tests/clean tests/need test long
	@SUITES=hostile tests/clean tests/run $(LATER) upper

test-fuzz: all
	@tests/clean tests/need test long
	@SUITES=fuzz tests/clean tests/sanitized $(LATER) upper

test-bench test-notes test-exercises: test-%: all
	@tests/clean tests/need test long
	@tests/clean tests/run $(*:exercises=commands exercises)

shake: all
	@tests/clean tests/need test exercise
	@tests/clean tests/shake $(SECONDS)

test-browser test-lab: test-%: all
	@tests/clean tests/need test $*
	@tests/clean tests/run $*

$(LATER:%=diff-%): diff-%:
	@$(DIFF) $(BEFORE_$*) $(SOURCE) || [ $$? -eq 1 ]

# The first calls are the loader's; the program's own begin with socket().
$(NAMES:%=trace-%): trace-%: %
	@tests/clean tests/need trace
	@strace -e trace=$(CALLS) -o '|trap "" INT; sed -un "/^socket(/,\$$p"' \
	    ./$(dir $(SOURCE))$* $(ARGS)

try-%: FORCE
	@tests/clean tests/exercises/exercise try '$*'

again-%: FORCE
	@tests/clean tests/exercises/exercise again '$*'

check-%: FORCE
	@tests/clean tests/exercises/exercise check '$*'

keep-%: FORCE
	@tests/clean tests/exercises/exercise keep '$*'

hint-%: FORCE
	@tests/clean tests/exercises/exercise hint '$*'

answer-%: FORCE
	@tests/clean tests/exercises/exercise answer '$*'

progress:
	@tests/clean tests/exercises/exercise progress

FORCE:

lab:
	@tests/lab/lab

$(NAMES:%=walk-%): walk-%:
	@tests/lab/lab $*

diff-% trace-% walk-%: FORCE
	@echo 'there is no $@: the stages are $(NAMES),' \
	    'and none comes before 01_blocking' >&2; exit 1

dawdlers:
	@tests/clean tests/need lab
	@tests/lab/dawdlers $(PORT)

watch:
	@tests/clean tests/need lab
	@watch -t -n 1 tests/lab/look $(PORT)

bench:
	@tests/clean tests/bench/run

$(PARTS:%=bench-%): bench-%:
	@tests/clean tests/bench/run $*

book:
	@tests/clean tests/need book
	@tests/clean tests/notes/book

timeline: 02_blocking_loop 03_select 05_epoll_et
	@tests/clean tests/need trace
	@tests/clean tests/notes/timeline $(INTO)

film: 04_epoll_lt 05_epoll_et
	@tests/clean tests/need exercise
	@tests/clean tests/notes/film $(INTO)

lint:
	@tests/clean tests/need lint
	@tests/clean tests/lint

clean:
	@for s in $(STAGES); do $(MAKE) -C $$s clean; done
