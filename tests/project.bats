#!/usr/bin/env bats
# What is not one stage's: the Makefiles, the sources side by side, README.md.

load common

STAGES='01_blocking 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et
06_tcp_options'
NAMES=${STAGES/06/keep_alive 06}

# Copies the project to a folder of the test's, without what has been built, nor
# what a learner has added.
setup() {
  copy="$BATS_TEST_TMPDIR/a copy"
  mkdir "$copy"
  tar -C "$PROJECT" --exclude=./my --exclude=./.git --exclude=./tests/exercises \
    --exclude='*.o' --exclude='*.out' -c . | tar -C "$copy" --no-same-owner -x
  cd "$copy" || return
  make -s clean >/dev/null
  export CFLAGS=-O0 # quick
}

@test "make builds all programs; git ignores, make clean removes them" {
  mkdir my
  touch my/file # of a learner
  before=$(find . -type f | sort)
  git init -q
  git add -A
  make -j 8
  for stage in $STAGES; do
    [ -x "$stage/$stage" ]
  done
  same "$(git status --porcelain --untracked-files=all | grep '^?')" ''
  same "$(git status --porcelain --ignored |
    sed -n 's/^!! //p' | xargs -n 1 basename | sort | tr '\n' ' ')" \
    "$(tr '\n' ' ' <<<"$STAGES")keep_alive my upper_client upper_server "
  same "$(git ls-files | xargs file --brief | grep -c ELF)" 0
  make clean
  rm -rf .git
  same "$(find . -type f | sort)" "$before"
}

@test "the programs link libc and nothing else" {
  make -s >/dev/null
  same "$(find 0* -type f -perm -u+x -exec readelf -d {} + | grep NEEDED |
    grep -v '\[ld-' | sed 's/.*\[libc\..*/libc/' | uniq -c | tr -s ' ')" ' 9 libc'
}

@test "make NAME ends by printing the command that runs the stage" {
  for stage in $STAGES keep_alive; do
    run -0 make CC=true "$stage"
    same "${lines[-1]}" "$(PROGRAMS=. program "$stage")"
  done
}

@test "make NAME runs the stage's Makefile though a folder NAME exists" {
  make 01_blocking
  touch -d '1 hour' 01_blocking/server.c
  run make 01_blocking
  [[ $output == *server.c* ]]
}

@test "in a stage's folder, make NAME && ./NAME builds and runs it" {
  for stage in $STAGES; do
    (cd "$stage" && make "$stage" && timeout 20 "./$stage" --help)
  done
}

@test "a stage copied out of the tree builds, under any name" {
  cp -r 05_epoll_et "$BATS_TEST_TMPDIR/my own server"
  cd "$BATS_TEST_TMPDIR/my own server"
  make
  timeout 20 ./server --help
}

@test "the six stages' Makefiles are the same" {
  same "$(md5sum 0*/Makefile | cut -d ' ' -f 1 | uniq | wc -l)" 1
}

@test "CC, CFLAGS, CPPFLAGS and LDFLAGS are honoured" {
  run make CC='echo compiler' CFLAGS=-one CPPFLAGS=-two LDFLAGS=-three
  [[ $output == *'compiler -two -one -three -o 01_blocking server.c'* ]]
  [[ $output == *'compiler -two -one -three -o upper_client upper_client.c'* ]]
  CC=false run ! make 02_blocking_loop
}

# Fails unless each line that begins with make names a target that make knows.
names_targets() { # lines
  local target
  while read -r _ target _; do
    make -n "$target"
  done < <(grep '^make ' <<<"$1")
}

@test "make help fits a screen, and make help-all names every target once" {
  run make help
  ((${#lines[@]} > 15))
  (($(wc -l <<<"$output") <= 23)) # the prompt has a line, too
  same "$(grep -E '.{80}' <<<"$output")" ''
  names_targets "$output"
  run make help-all
  for target in $(sed -n 's/^\.PHONY: //p' 01_blocking/Makefile) help help-all \
    test lint $STAGES test-project test-sanitized test-06_tcp_options \
    diff-06_tcp_options trace-01_blocking; do
    same "$(grep -c "^make $target  *[a-z]" <<<"$output")" 1
  done
  names_targets "$output"
}

@test "make diff-NAME shows the change, without git as well" {
  run -0 make diff-02_blocking_loop
  same "$output" "$(diff -u 01_blocking/server.c 02_blocking_loop/server.c)"
  run make diff-06_tcp_options
  [[ $output == *TCP_CORK* ]]
}

@test "make trace-NAME shows the calls of the lesson, and no others" {
  local server
  out=$BATS_TEST_TMPDIR/out
  make -s 04_epoll_lt
  in_background make -s trace-04_epoll_lt ARGS=0 >"$out" 2>&1
  wait_until grep -q '^listening' "$out"
  port=$(sed -n 's,^listening.*:\([0-9]*\)/$,\1,p' "$out")
  server=$(ss -Hltnp "src 127.0.0.1:$port" | sed 's/.*pid=\([0-9]*\).*/\1/')
  echo "$server" >>"$BATS_TEST_TMPDIR/pids"
  curl -sS --max-time "$DEADLINE" "http://127.0.0.1:$port/"
  kill -TERM "$server"
  wait "$started" || true
  cat "$out"
  grep '^accept4(' "$out"
  grep -E '^epoll_p?wait\(' "$out"
  same "$(grep -cE '^(mmap|brk|openat|read|execve)' "$out")" 0
  same "$(grep -m 1 '(' "$out" | grep -c '^socket(')" 1
}

@test "04 to 06 refuse to build where there is no epoll, with one line" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  printf '#!/bin/sh\necho FreeBSD\n' >"$BATS_TEST_TMPDIR/bin/uname"
  chmod +x "$BATS_TEST_TMPDIR/bin/uname"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  for stage in 01_blocking 02_blocking_loop 03_select; do
    make -C "$stage"
  done
  for stage in 04_epoll_lt 05_epoll_et 06_tcp_options; do
    run ! make -s -C "$stage"
    same "${#lines[@]}" 1
    [[ $output == *"$stage needs Linux"* ]]
  done
}

@test "a missing tool is named, with its package, before anything runs" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  for tool in awk bash curl gcc make grep env clang git strace dirname mktemp rm xargs; do
    ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/bin/"
  done
  PATH=$BATS_TEST_TMPDIR/bin run -1 tests/need test
  same "$output" "missing: bats cmp nc perl prlimit ps ss file; to install: apt-get \
install bats diffutils netcat-openbsd perl-base util-linux procps iproute2 file"
  PATH=$BATS_TEST_TMPDIR/bin run -1 tests/bench/run
  same "${#lines[@]}" 1
  [[ $output == 'missing: pgrep ss ab '*' install procps iproute2 apache2-utils '* ]]
  PATH=$BATS_TEST_TMPDIR/bin run -2 make -s walk-01_blocking
  [[ ${lines[0]} == 'missing: '*' tmux '*'; to install: '*' tmux '* ]]
  # So is a bats that is too old.
  printf '#!/bin/sh\necho Bats 1.2.1\n' >"$BATS_TEST_TMPDIR/bin/bats"
  chmod +x "$BATS_TEST_TMPDIR/bin/bats"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run -1 tests/need test
  [[ $output == 'bats 1.2 is too old: 1.8 or later is needed'* ]]
}

@test "01 to 03 need no more than POSIX and strcasestr, with gcc and clang" {
  for stage in 01_blocking 02_blocking_loop 03_select; do
    sed '/^#define _GNU_SOURCE$/d' "$stage/server.c" >"$stage/posix.c"
    for compiler in gcc clang; do
      "$compiler" -std=c17 -D_POSIX_C_SOURCE=200809L -Dstrcasestr=strstr \
        -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -c \
        -o /dev/null "$stage/posix.c"
    done
  done
}

# Prints the part of a stage that is the same in all.
common_part() { # name
  sed -n '/^\/\* ---- The same in all/,/^\/\* ---- The conn/p' "$(source_of "$1")"
}

# Prints where the source of a stage, or of another program, stands.
source_of() { # name
  case $1 in
  keep_alive) echo 06_tcp_options/keep_alive.c ;;
  upper_*) echo "04_epoll_lt/$1.c" ;;
  *) echo "$1/server.c" ;;
  esac
}

@test "the part marked the same in all stages is the same" {
  [ "$(common_part 01_blocking | wc -l)" -gt 80 ]
  for stage in $NAMES; do
    same "$(common_part "$stage")" "$(common_part 01_blocking)"
  done
}

# Prints the functions of a stage, in their order.
functions() { # name
  sed -nE 's/^(static [a-z].*[ *])?([a-z_]+)\(.*[^;]$/\2/p' "$(source_of "$1")"
}

@test "functions stand in the same order in neighbouring stages" {
  local before=01_blocking stage
  for stage in ${NAMES#* }; do
    [ "$(functions "$stage" | wc -l)" -gt 10 ]
    same "$(functions "$stage" | grep -xF -f <(functions "$before"))" \
      "$(functions "$before" | grep -xF -f <(functions "$stage"))"
    before=$stage
  done
}

@test "a GET costs 04 six calls, and 05 five and an accept4 that finds nobody" {
  for STAGE in 04_epoll_lt 05_epoll_et; do
    RUN="strace -D -o ${log@Q}" start "$STAGE"
    for _ in {1..10}; do
      connect
      send 'GET / HTTP/1.0\r\n\r\n' # in one piece
      gives hello receive
    done
    end_trace >/dev/null
    # Not counted are the waits, and what stdio (for the console) and malloc() do.
    same "$(sed '1,/^epoll_p*wait/d; /^--- SIGTERM/,$d' "$log" |
      grep -cvE '^(epoll_p?wait|write|.*stat.*|brk|mmap|munmap|madvise|getrandom)\(')" 60
  done
}

@test "no line of a program or a Makefile is longer than 80 columns" {
  same "$(grep -nE '^.{81,}' ./Makefile ./*/Makefile ./*/*.c)" ''
}

@test "no program is longer, or changes more lines, than half an hour allows" {
  local name lines changes file before length changed
  # The name, the lines that it may have, and those that may differ from the
  # stage before.
  while read -r name lines changes; do
    file=$(source_of "$name")
    length=$(wc -l <"$file") changed=0
    [ -z "$changes" ] || changed=$(diff "$before" "$file" | grep -c '^[<>]')
    echo "$name: $length of $lines lines, $changed of ${changes:-0} changed"
    ((length <= lines && changed <= changes))
    before=$file
  done <<'.'
01_blocking 208
02_blocking_loop 218 40
03_select 308 205
04_epoll_lt 318 82
05_epoll_et 323 80
keep_alive 410 145
06_tcp_options 455 60
upper_server 223
upper_client 123
.
}
