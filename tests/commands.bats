#!/usr/bin/env bats
# The commands that a learner types do what they promise, in a copy of the tree,
# without git.

load common

# shellcheck disable=SC2034 # of wait_until: a check on a full machine takes its time
DEADLINE=300

# Makes a copy of the tree, and goes there, as if make had not started this.
setup() {
  unset MAKEFLAGS MFLAGS MAKELEVEL MY
  mkdir "$BATS_TEST_TMPDIR/tree"
  cp -r "$PROJECT"/{Makefile,NOTES.md,tests} "$PROJECT"/0*_* \
    "$BATS_TEST_TMPDIR/tree"
  cd "$BATS_TEST_TMPDIR/tree" || return
}

@test "an ID that does not exist gets one line that names make progress" {
  for word in try check hint answer; do
    for id in 9.z 4 4.aa x; do
      run ! --separate-stderr make -s "$word-$id"
      same "$output" ''
      [[ ${stderr_lines[0]} == *"'$id'"*"make progress"* ]]
      [[ ${#stderr_lines[@]} -le 1 || ${stderr_lines[1]} == make:* ]]
    done
  done
}

@test "try copies the stage, builds it, says what to do, and keeps what is there" {
  run -0 make -s try-1.a
  [ -x my/1.a/01_blocking/01_blocking ]
  [[ $output == *"my/1.a/01_blocking/server.c"*"make check-1.a"* ]]
  [[ $output == *'$ my/1.a/01_blocking/01_blocking'* ]]
  echo '/* mine */' >>my/1.a/01_blocking/server.c
  run -0 make -s try-1.a
  [[ ${lines[0]} == *"exists, and is kept"*"make again-1.a" ]]
  same "$(tail -n 1 my/1.a/01_blocking/server.c)" '/* mine */'
}

@test "again begins anew, and keeps the old copies" {
  make -s try-1.a >/dev/null
  for i in 1 2; do
    echo "/* $i */" >>my/1.a/01_blocking/server.c
    make -s again-1.a >/dev/null
    same "$(tail -n 1 "my/1.a.$i/01_blocking/server.c")" "/* $i */"
    run ! grep "/* $i */" my/1.a/01_blocking/server.c
  done
  same "$(make -s progress FORM=tab | grep -c "tried")" 1
}

@test "keep checks each time the file is saved" {
  make -s try-1.1 >/dev/null
  in_background make -s keep-1.1 >kept 2>&1
  wait_until grep -q 'not done yet' kept
  patch -s -p2 -d my/1.1/01_blocking <tests/exercises/1.1/solution.patch
  wait_until grep -q '^1.1: done' kept
  kill "$(pgrep -P "$started")" # what make runs: of its name, others may be
  wait "$started" || true
}

@test "check before try names make try" {
  run ! make -s check-1.a
  [[ $output == *"make try-1.a"* ]]
}

@test "check shows the compiler's warnings, and nothing else after an error" {
  make -s try-1.a >/dev/null
  echo 'static int unused;' >>my/1.a/01_blocking/server.c
  run make -s check-1.a
  [[ $output == *warning:*unused* ]]
  echo 'int' >>my/1.a/01_blocking/server.c
  run ! --separate-stderr make -s check-1.a
  [[ $output == *server.c:*error:* ]]
  [[ $output != *make* && $output != *promise* && $output != *not\ done* ]]
}

@test "hints come one at a time, and run out" {
  count=$(grep -c '^## Hint$' tests/exercises/1.a/answer.md)
  for ((i = 1; i <= count; i++)); do
    run make -s hint-1.a
    same "${lines[0]}" "Hint $i of $count:"
    [ -n "${lines[1]}" ]
  done
  for i in 1 2; do
    run -0 make -s hint-1.a
    [[ ${lines[0]} == 'There are no more hints'* ]]
  done
}

@test "the answer is the change, and why it is right" {
  for id in 1.a 1.1; do
    run -0 make -s "answer-$id"
    [[ $output == *'--- a/01_blocking/server.c'*'@@'* ]]
    [[ $output == *"$(sed '1,/^## Answer$/d; /^## /,$d' \
      "tests/exercises/$id/answer.md" | sed '/./,$!d')"* ]]
  done
  # It needs no copy, and makes none.
  [ ! -e my ]
}

@test "progress shows what is done, tried and open, and the next to try" {
  run -0 make -s progress
  same "${lines[0]}" '1. 01_blocking'
  [[ ${lines[1]} =~ ^\ +1\.1\ +open\  ]]
  [[ ${lines[-1]} == "0 of "*"next: make try-1.1" ]]
  make -s try-1.1 >/dev/null
  make -s try-1.a >/dev/null
  make -s progress | grep -E '^ +1\.1 +tried '
  patch -s -p2 -d my/1.1/01_blocking <tests/exercises/1.1/solution.patch
  make -s check-1.1
  run make -s progress
  [[ ${lines[1]} =~ ^\ +1\.1\ +done\  ]]
  [[ ${lines[-1]} == "1 of "*"next: make try-1.2" ]]
  # The last check counts.
  cp 01_blocking/server.c my/1.1/01_blocking
  mkdir left
  TMPDIR=$PWD/left run ! make -s check-1.1
  rmdir left # it is empty
  make -s progress | grep -E '^ +1\.1 +tried '
}

# Puts statements at the beginning of a copy's main, and has it checked.
check_spoiled() { # statements
  cp 02_blocking_loop/server.c my/2.a/02_blocking_loop
  sed -i "s,^    signal(SIGPIPE.*,    $1\n&," my/2.a/02_blocking_loop/server.c
  local begin=$SECONDS
  export CHECK_SECONDS=600 TMPDIR=$BATS_TEST_TMPDIR
  run ! make -s check-2.a
  ((SECONDS - begin <= 300)) # 8, but for a busy machine: no test was waited for
  ! grep -lsz "^CHECK=$TMPDIR/" /proc/[0-9]*/environ # the name is other copies' too
}

@test "a copy that goes mad is refused in seconds, and leaves nothing running" {
  make -s try-2.a >/dev/null
  check_spoiled 'for (;;) ;'
  [[ $output == *'it hangs, or has closed its output'* ]]
  check_spoiled 'for (;;) puts("and so on");'
  [[ $output == *'prints without end'*'and so on'* ]]
  check_spoiled 'for (int fd = 0; fd < 9; fd++) close(fd);'
  [[ $output == *'ends at once'* || $output == *'closed its output'* ]]
  check_spoiled 'for (int i = 0; i < 50; i++) if (fork() == 0) for (;;) pause();  for (;;) pause();'
  [[ $output == *'one process after another'* ]]
  check_spoiled 'raise(SIGSEGV);'
  [[ $output == *'ends at once, with exit code 139'* ]]
}

@test "a learner's environment changes no verdict" {
  local folder="$BATS_TEST_TMPDIR/Übung 1 = eins" names=(de_DE fr_FR tr_TR zh_CN) name mine
  name=${names[10#$(date +%j) % 4]}
  localedef -i "$name" -f UTF-8 "$BATS_TEST_TMPDIR/$name.UTF-8" || {
    echo 'to install: apt-get install locales'
    return 1
  }
  mv "$PWD" "$folder"
  cd "$folder"
  mkdir 'Ä und Ö'
  echo 'echo noise; cd /' >noise
  printf 'include\nmax-time = 0.001\n' >.curlrc
  mine=(env -i PATH="${PATH#"$BATS_LIBEXEC:"}" LOCPATH="$BATS_TEST_TMPDIR" LC_ALL="$name.UTF-8" HOME="$PWD"
    TMPDIR="$PWD/Ä und Ö" http_proxy=http://127.0.0.1:9 ALL_PROXY=http://127.0.0.1:9
    CDPATH=.:/ BASH_ENV="$PWD/noise" ENV="$PWD/noise" GREP_OPTIONS=-v GREP_COLORS=x
    POSIXLY_CORRECT=1 SHELLOPTS=xtrace STRACE_LOG_PID_WIDTH=9 prlimit --nofile=1024:1024)
  run "${mine[@]}" make -s -j8 test-02_blocking_loop
  [[ ${lines[-1]} == [1-9]*' passed, 0 failed' ]] || { echo "$output" && return 1; }
  same "$(tests/clean sh -c 'kill -ALRM $$; echo alive')" alive # strace -D may send one
  "${mine[@]}" make -s try-2.a
  run "${mine[@]}" make -s check-2.a
  [[ $output == *'This promise is not kept: it serves clients one after another'* ]]
  cp 02_blocking_loop/server.c my/2.a/02_blocking_loop
  run "${mine[@]}" make -s check-2.a
  same "${lines[-1]}" '2.a: done'
}
