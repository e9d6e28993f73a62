#!/usr/bin/env bats
# That the exercises and the hunts can be solved, and are what they say.

load common

FOLDER=$PROJECT/tests/exercises

# Checks every copy that a folder knows of, some at once, for they mostly wait.
# Leaves $BATS_FILE_TMPDIR/ID/KIND.{log,code}. Kinds: given, the bare stage, or
# with its bug; sound, the stage or the solution; the other and wrong fixes; and
# shows and hides, which play the transcript of a hunt, with its bug and without.
# With $IDS, only those are looked at.
setup_file() {
  export TMPDIR=$BATS_FILE_TMPDIR TOOLS=$BATS_FILE_TMPDIR/tools
  export CHECK_SECONDS=300 SLOW_LAST=yes
  local id kind
  while read -r id kind; do
    while (($(jobs -r | wc -l) >= ${JOBS:-6})); do
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
  done < <("$FOLDER/exercise" fixes)
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

# Prints something where a check is to run its proof alone, for time: `make test` runs
# the rest on the stage's own text, and here it runs on one other fix of each source.
proof_alone() { # id kind
  local one
  [[ -e $FOLDER/$1/bug.patch && $2 == @(sound|other-*) ]] || return 0
  for one in $(ids hunts); do
    [[ $one != "$1" || $2 == sound ]] || return 0
    grep -q '^## Other' "$FOLDER/$one/answer.md" || continue
    if [ "$(source_of "$1")" = "$(source_of "$one")" ]; then
      echo "$one"
      return
    fi
  done
}

# Makes the learner's copy of a kind, and checks it, or plays its transcript.
try_kind() { # id kind
  local id=$1 kind=$2 fix=$2 code=0 log=$BATS_FILE_TMPDIR/$1/$2
  [ "$kind" != given ] || export SHOWN=99 # all that it turns red are looked for
  case $kind in
  shows) fix=given ;;
  hides) fix=sound ;;
  esac
  export MY=$log.my
  mkdir -p "${log%/*}"
  "$FOLDER/exercise" fix "$id" "$fix"
  if [ "$fix" = "$kind" ]; then
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
  for id in $(ids); do
    head -n 1 "$FOLDER/$id/task.md" | grep "^# $id ."
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
  export FOLDER
  export -f compiles source_of
  same "$("$FOLDER/exercise" fixes |
    xargs -P "$(nproc)" -n 3 bash -c 'compiles "$@" 2>&1 || echo "not $*"' -)" ''
  same "$(grep -s "[.]c:.*warning:" "$BATS_FILE_TMPDIR"/*/*.log)" '' # where gcc has built it
}

compiles() { # verdict id kind
  export MY=$BATS_TEST_TMPDIR/$2.$3
  local file
  file=$MY/$2/$(source_of "$2")
  "$FOLDER/exercise" fix "$2" "$3" &&
    clang -Wall -Wextra -Werror -fsyntax-only "$file"
}

@test "a hunt's report shows what the buggy program does, and the stage does not" {
  all_end 0 shows
  all_end 1 hides
}

@test "a check says no to a fresh copy, and to fixes that hide the symptom" {
  all_end 1 'given|wrong-*'
}

@test "a check says yes to the right stage or solution, and to other right fixes" {
  all_end 0 'sound|other-*'
}

@test "a hunt's check names each test that the bug turns red" {
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

@test "a check names what a known wrong fix gets wrong, and no other's mistake" {
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
