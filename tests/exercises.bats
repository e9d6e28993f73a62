#!/usr/bin/env bats
# That the exercises and the hunts can be solved, and are what they say; that
# the commands which a learner types do what they promise.

load common

FOLDER=$PROJECT/tests/exercises

# Checks every copy that a folder knows of, some at once, for they mostly wait.
# Leaves $BATS_FILE_TMPDIR/ID/KIND.{log,code}. Kinds: given, the bare stage, or
# with its bug; sound, the stage or the solution; the other and wrong mends; and
# shows and hides, which play the transcript of a hunt, with its bug and without.
# With $IDS, only those are looked at.
setup_file() {
  export TMPDIR=$BATS_FILE_TMPDIR CHECK_SECONDS=200 CHUNK=99
  local id kind
  while read -r id kind; do
    while (($(jobs -r | wc -l) >= ${JOBS:-4})); do
      wait -n || true
    done
    try_kind "$id" "$kind" 3>&- &
  done < <(list_kinds)
  wait
}

# Prints the IDs that are looked at, or the hunts among them.
ids() { # [hunts]
  local one
  for one in "$FOLDER"/[1-9].*; do
    one=${one##*/}
    [[ " ${IDS-$one} " != *" $one "* || ${1-}:$one == hunts:*.[0-9]* ]] || echo "$one"
  done
}

# Prints an ID and a kind, a line each.
list_kinds() {
  local id kind
  while read -r _ id kind; do
    [[ " ${IDS-$id} " != *" $id "* ]] || echo "$id $kind"
  done < <("$FOLDER/exercise" mends)
  ids hunts | sed 's/.*/& shows\n& hides/'
}

# Prints STAGE/SOURCE.
source_of() { # id
  sed -n '1s,^--- a/,,p;q' "$(ls "$FOLDER/$1"/{bug,solution}.patch 2>/dev/null)"
}

# Prints the tests that a hunt's bug turns red.
red_of() { # id
  sed -n '/^## Turns red$/,/^## /s/^- [a-z0-9_]*: //p' "$FOLDER/$1/answer.md"
}

# Prints something where a check is to run its proof alone, for time: the rest of
# the suites is run once for the stage's own text, and for one other mend of it.
# With $WHOLE it is run each time.
proof_alone() { # id kind
  local one
  [[ -z ${WHOLE-} && -e $FOLDER/$1/bug.patch ]] || return 0
  [[ $2 == sound || $2 == other-* ]] || return 0
  for one in $(ids hunts); do
    [ "$one" != "$1" ] || return 0
    [ "$2" = sound ] || grep -q '^## Other' "$FOLDER/$one/answer.md" || continue
    if [ "$(source_of "$1")" = "$(source_of "$one")" ]; then
      echo "$one"
      return
    fi
  done
}

# Makes the learner's copy of a kind, and checks it, or plays its transcript.
try_kind() { # id kind
  local id=$1 kind=$2 mend=$2 code=0 log=$BATS_FILE_TMPDIR/$1/$2
  [ "$kind" != given ] || export SHOWN=99 # all that it turns red are looked for
  case $kind in
  shows) mend=given ;;
  hides) mend=sound ;;
  esac
  export MY=$log.my
  mkdir -p "${log%/*}"
  "$FOLDER/exercise" mend "$id" "$mend"
  if [ "$mend" = "$kind" ]; then
    PROOF_ALONE=$(proof_alone "$id" "$kind") "$FOLDER/exercise" check "$id"
  else
    make -s -B -C "$MY/$id/$(dirname "$(source_of "$id")")"
    PROGRAMS=$MY/$id "$PROJECT/tests/notes/play" "$FOLDER/$id/task.md" all
  fi >"$log.log" 2>&1 || code=$?
  echo "$code" >"$log.code"
}

# Fails, with what was said, unless all of some kinds have ended with this code.
all_end() { # code kind|kind...
  local id kind code count=0 wrong=0
  while read -r id kind; do
    [[ $kind == @($2) ]] || continue
    count=$((count + 1))
    code=$(<"$BATS_FILE_TMPDIR/$id/$kind.code")
    [ "$code" = "$1" ] || {
      echo "$id, $kind: exit code $code"
      cat "$BATS_FILE_TMPDIR/$id/$kind.log"
      wrong=1
    }
  done < <(list_kinds)
  same "$wrong" 0
  ((count > 0)) || [ -n "${IDS-}" ]
}

@test "every folder is whole" {
  local id file suite name
  for id in $(ids); do
    head -n 1 "$FOLDER/$id/task.md" | grep "^# $id ."
    [ -e "$PROJECT/$(source_of "$id")" ]
    for file in Hint Answer; do
      grep "^## $file\$" "$FOLDER/$id/answer.md"
    done
    while IFS=: read -r suite name; do
      grep -F "${name% (sometimes)}\" {" "$PROJECT/tests/$suite.bats"
    done < <(sed -nE '/^- seen/d; /^## (Turns|Wrong)/,/^```/s/^- ([a-z0-9_]+): /\1:/p' \
      "$FOLDER/$id/answer.md")
  done
  (($(ids hunts | wc -l) >= 24)) || [ -n "${IDS-}" ]
  for id in $(ids hunts); do
    [ -n "$(red_of "$id")" ]
  done
}

@test "every change applies to the stage as it is, and no compiler warns" {
  local id kind file
  export MY=$BATS_TEST_TMPDIR/my
  while read -r _ id kind; do
    echo "$id $kind"
    "$FOLDER/exercise" mend "$id" "$kind"
    file=$MY/$id/$(source_of "$id")
    gcc -O2 -Wall -Wextra -Werror -c -o /dev/null "$file"
    clang -Wall -Wextra -Werror -fsyntax-only "$file"
  done < <("$FOLDER/exercise" mends)
}

@test "a hunt's report shows what the bugged program does, and the stage does not" {
  all_end 0 shows
  all_end 1 hides
}

@test "a check says no to what is given, and to mends that hide the symptom" {
  all_end 1 'given|wrong-*'
}

@test "a check says yes to the stage's own text or the solution, and to other mends" {
  all_end 0 'sound|other-*'
}

@test "a hunt's check names each test that the bug turns red" {
  local id name
  for id in $(ids hunts); do
    while read -r name; do
      grep -qF "This promise is not kept: $name" \
        "$BATS_FILE_TMPDIR/$id/given.log" || {
        echo "$id does not turn this red: $name"
        cat "$BATS_FILE_TMPDIR/$id/given.log"
        return 1
      }
    done < <(red_of "$id")
  done
}

@test "a check names what a known wrong mend gets wrong, and no other's mistake" {
  local id kind name sentence log
  while read -r id kind; do
    [[ $kind != shows && $kind != hides ]] || continue
    log=$(tr '\n' ' ' <"$BATS_FILE_TMPDIR/$id/$kind.log")
    while read -r name; do
      sentence=$(sed "1,/^## Wrong: $name\$/d; /^[#\`]/,\$d; /^- /d" \
        "$FOLDER/$id/answer.md" | tr -s '\n' ' ' | sed 's/^ *//; s/ *$//')
      [ -n "$sentence" ] || continue
      if [ "$kind" = "wrong-$name" ]; then
        [[ $log == *"$sentence"* ]]
      else
        [[ $log != *"$sentence"* ]]
      fi || {
        echo "$id, $kind: the sentence of $name"
        cat "$BATS_FILE_TMPDIR/$id/$kind.log"
        return 1
      }
    done < <(sed -n 's/^## Wrong: //p' "$FOLDER/$id/answer.md")
  done < <(list_kinds)
}

# --- The commands, in a copy of the tree, without git --------------------------

# Makes a copy of the tree, and goes there, as if no make ran this.
go_to_copy() {
  unset MAKEFLAGS MFLAGS MAKELEVEL
  mkdir "$BATS_TEST_TMPDIR/tree"
  cp -r "$PROJECT"/{Makefile,NOTES.md,tests} "$PROJECT"/0*_* \
    "$BATS_TEST_TMPDIR/tree"
  cd "$BATS_TEST_TMPDIR/tree" || return
}

@test "an ID that does not exist is one line that names make progress" {
  go_to_copy
  local word
  for word in try check hint answer; do
    for id in 9.z 4 4.aa x; do
      run --separate-stderr make -s "$word-$id"
      [ "$status" -ne 0 ]
      same "$output" ''
      [[ ${stderr_lines[0]} == *"'$id'"*"make progress"* ]]
      [[ ${#stderr_lines[@]} -le 1 || ${stderr_lines[1]} == make:* ]]
    done
  done
}

@test "try copies the stage, builds it, says what to do, and keeps what is there" {
  go_to_copy
  run make -s try-1.a
  same "$status" 0
  [ -x my/1.a/01_blocking/01_blocking ]
  [[ $output == *"my/1.a/01_blocking/server.c"*"make check-1.a"* ]]
  [[ $output == *'$ my/1.a/01_blocking/01_blocking'* ]]
  echo '/* mine */' >>my/1.a/01_blocking/server.c
  run make -s try-1.a
  same "$status" 0
  [[ ${lines[0]} == *"stays as it is"*"make again-1.a" ]]
  same "$(tail -n 1 my/1.a/01_blocking/server.c)" '/* mine */'
}

@test "again begins anew, and keeps the old copies" {
  go_to_copy
  local i
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
  go_to_copy
  make -s try-1.1 >/dev/null
  make -s keep-1.1 >kept 2>&1 3>&- &
  wait_until grep -q 'not done yet' kept
  patch -s -p2 -d my/1.1/01_blocking <tests/exercises/1.1/solution.patch
  wait_until grep -q '^1.1: done' kept
  kill "$(pgrep -f -n 'exercise keep 1.1')"
  wait $! || true
}

@test "check before try says so" {
  go_to_copy
  run make -s check-1.a
  [ "$status" -ne 0 ]
  [[ $output == *"make try-1.a"* ]]
}

@test "a copy that does not compile gets the compiler's words alone" {
  go_to_copy
  make -s try-1.a >/dev/null
  echo 'int' >>my/1.a/01_blocking/server.c
  run --separate-stderr make -s check-1.a
  [ "$status" -ne 0 ]
  [[ $output == *server.c:*error:* ]]
  [[ $output != *make* && $output != *promise* && $output != *not\ done* ]]
}

@test "check shows the compiler's warnings" {
  go_to_copy
  make -s try-1.a >/dev/null
  echo 'static int unused;' >>my/1.a/01_blocking/server.c
  run make -s check-1.a
  [[ $output == *warning:*unused* ]]
}

@test "hints come one at a time, and run out" {
  go_to_copy
  local count i
  count=$(grep -c '^## Hint$' tests/exercises/1.a/answer.md)
  for ((i = 1; i <= count; i++)); do
    run make -s hint-1.a
    same "${lines[0]}" "Hint $i of $count:"
    [ -n "${lines[1]}" ]
  done
  for i in 1 2; do
    run make -s hint-1.a
    same "$status" 0
    [[ ${lines[0]} == 'There are no more hints'* ]]
  done
}

@test "the answer is the change, and why it is right" {
  go_to_copy
  local id
  for id in 1.a 1.1; do
    run make -s "answer-$id"
    same "$status" 0
    [[ $output == *'--- a/01_blocking/server.c'*'@@'* ]]
    [[ $output == *"$(sed '1,/^## Answer$/d; /^## /,$d' \
      "tests/exercises/$id/answer.md" | sed '/./,$!d')"* ]]
  done
  # It needs no copy, and makes none.
  [ ! -e my ]
}

@test "progress shows what is done, tried and open, and the next to try" {
  go_to_copy
  run make -s progress
  same "$status" 0
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
  run make -s check-1.1
  [ "$status" -ne 0 ]
  make -s progress | grep -E '^ +1\.1 +tried '
}

# Puts statements at the beginning of a copy's main, and has it checked.
check_spoiled() { # statements
  cp 02_blocking_loop/server.c my/2.a/02_blocking_loop
  sed -i "s,^    signal(SIGPIPE.*,    $1\n&," my/2.a/02_blocking_loop/server.c
  local begin=$SECONDS
  run make -s check-2.a
  [ "$status" -ne 0 ]
  ((SECONDS - begin <= 8))
  ! pgrep -f "^$PWD/my/2.a/\|^my/2.a/"
}

@test "a copy that goes mad is refused in seconds, and leaves nothing running" {
  go_to_copy
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
  [[ $output == *'ends at once, with 139'* ]]
}

@test "what learners have set for other programs changes no verdict" {
  local folder="$BATS_TEST_TMPDIR/Übung 1 = eins" names=(de_DE fr_FR tr_TR zh_CN) name mine
  name=${names[10#$(date +%j) % 4]}
  localedef -i "$name" -f UTF-8 "$BATS_TEST_TMPDIR/$name.UTF-8" || {
    echo 'to install: apt-get install locales'
    return 1
  }
  go_to_copy
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
  "${mine[@]}" make -s try-2.a
  run "${mine[@]}" make -s check-2.a
  [[ $output == *'This promise is not kept: it serves clients one after another'* ]]
  cp 02_blocking_loop/server.c my/2.a/02_blocking_loop
  run "${mine[@]}" make -s check-2.a
  same "${lines[-1]}" '2.a: done'
}
