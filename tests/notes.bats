#!/usr/bin/env bats
# That NOTES.md and README.md are true: what they say to type is typed, and what
# they show is compared. tests/notes/play does it, a section at a time.

load common

NOTES=$PROJECT/NOTES.md
TOOLS=$PROJECT/tests/notes

setup_file() {
  export REQUESTS=500 TMPDIR=$BATS_FILE_TMPDIR
}

# Leaves what it prints, and how it ends, in files named after the section.
play() { # line-of-heading
  local code=0
  DEADLINE=300 "$TOOLS/play" "$NOTES" "$1" >"$1.log" 2>&1 || code=$?
  echo "$code" >"$1.code"
}

# True when a section shows a time.
is_timed() { # line-of-heading
  sed -n "$(($1 + 1)),\$ { /^#/q; p }" "$NOTES" | grep -qE ' (quick|slow)$'
}

@test "in every section, what NOTES.md shows is what is printed" {
  local line lines failed=0
  cd "$BATS_TEST_TMPDIR"
  lines=$("$TOOLS/play" --blocks "$NOTES" | awk '$4 == "run" { print $2 }' | uniq)
  (($(wc -l <<<"$lines") > 20))
  for line in $lines; do # some at once, for they mostly wait
    ! is_timed "$line" || continue
    while (($(jobs -r | wc -l) >= 6)); do
      sleep 0.05
    done
    play "$line" 3>&- &
  done
  wait
  for line in $lines; do
    ! is_timed "$line" || play "$line" # alone, for it shows a time
    [ "$(<"$line.code")" = 0 ] || {
      sed -n "${line}p" "$NOTES"
      cat "$line.log"
      failed=1
    }
  done
  same "$failed" 0
}

@test "a wrong transcript is detected" {
  local wrong=$BATS_TEST_TMPDIR/wrong.md section
  section=$(sed -n '/^### Walkthrough of 02/=' "$NOTES")
  sed 's/ with 0 bytes received$/ with 1 bytes received/' "$NOTES" >"$wrong"
  run -1 "$TOOLS/play" "$wrong" "$section"
  echo "$output"
  [[ $output == "line "*"terminal 3 shows:"*"with 0 bytes"* ]]
  # So is a line too few, at the end, and one too many.
  section=$(sed -n '/^### Walkthrough of 01/=' "$NOTES")
  sed "$section,\$s/^Content-Length: 13\$//" "$NOTES" >"$wrong"
  run -1 "$TOOLS/play" "$wrong" "$section"
  sed "$section,\$s/^\(listening on .*80.\)\$/\1\nand more/" "$NOTES" >"$wrong"
  run -1 "$TOOLS/play" "$wrong" "$section"
}

@test "what comes after a pause is waited for" {
  cd "$BATS_TEST_TMPDIR"
  printf '%s\n' '```' "$ printf 'a\n\n'; read -rt 1; echo b" a '' b \
    '$ read -rt 1; echo c' c '$ echo d' d '```' >pause.md
  "$TOOLS/play" pause.md all
}

@test "epoll_wait may be epoll_pwait, as on 64-bit ARM" {
  # shellcheck source=tests/notes/match.bash
  . "$TOOLS/match.bash"
  same "$(squeeze <<<'epoll_pwait(4, [], 64, 1000, NULL, 8) = 0')" \
    "$(squeeze <<<'epoll_wait(4, [], 64, 1000)             = 0')"
}

@test "every reference to a line finds its words there" {
  "$TOOLS/references" check "$NOTES"
  (($("$TOOLS/references" list "$NOTES" | wc -l) > 100))
}

@test "a reference to a wrong line is found, and can be set right" {
  local wrong=$BATS_TEST_TMPDIR/wrong.md
  sed '0,/server\.c#L[0-9]/s/server\.c#L/server.c#L1/' "$NOTES" >"$wrong"
  run -1 "$TOOLS/references" check "$wrong"
  same "$(grep -c '^>' <<<"$output")" 1
  "$TOOLS/references" renumber "$wrong"
  cmp "$wrong" "$NOTES"
  # Words that stand nowhere are not set right.
  sed '0,/\[`int main(`/s//[`int mane(`/' "$NOTES" >"$wrong"
  run -1 "$TOOLS/references" renumber "$wrong"
}

@test "every hunk of a diff is explained in its chapter" {
  local name change=$BATS_TEST_TMPDIR/change after from to begin end
  cd "$PROJECT"
  for name in 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et keep_alive 06_tcp_options; do
    from=$(sed -nE "/^### The change from .* to ($name|${name%%_*})\$/=" NOTES.md)
    to=$(sed -n "$((from + 1)),\$ { /^###/ { =; q } }" NOTES.md)
    make -s "diff-$name" DIFF='diff -u' >"$change"
    after=$(sed -n 's/^+++ \(.*\)\t.*/\1/p' "$change")
    while IFS=, read -r begin end; do
      "$TOOLS/references" list | awk -F '\t' -v after="$after" -v from="$from" \
        -v to="$to" -v begin="$begin" -v end=$((begin + ${end:-1})) '
        $1 > from && $1 < to && $2 == after && $3 >= begin && $3 < end { found = 1 }
        END { exit !found }' || {
        echo "nothing on $after, $begin,$end"
        return 1
      }
    done < <(sed -n 's/^@@ .*+\([0-9,]*\) @@.*/\1/p' "$change")
  done
}

@test "every link to a file of the project leads somewhere" {
  cd "$PROJECT"
  # (browser.bats looks at the links to headings: the book has them all.)
  for target in $(cat NOTES.md README.md | tr '\n' ' ' |
    grep -oE '\]\([^) ]+\)' | sed 's/^](//; s/)$//; s/#L[0-9]*$//' |
    sort -u); do
    [[ $target == @(http|#)* || -e $target ]] || {
      echo "$target leads nowhere"
      return 1
    }
  done
}

@test "every make target in the text exists" {
  cd "$PROJECT"
  for target in $(grep -ohE '`make [a-z0-9_-]+`' NOTES.md README.md |
    tr -d '`' | sed 's/^make //' | sort -u); do
    make -n "$target" >/dev/null
  done
}

@test "README.md: the command for a server runs one, and it answers" {
  mapfile -t commands < <(
    sed -n '/^## Run one/,/^## [^R]/ { /^```sh/,/^```/ { /^```/!p } }' \
      "$PROJECT/README.md"
  )
  cp -r "$PROJECT/Makefile" "$PROJECT"/0*_* "$BATS_TEST_TMPDIR"
  cd "$BATS_TEST_TMPDIR"
  # All of it but the installing, and with a port of its own.
  [[ ${commands[0]} == *'apt-get install -y '*' && make 01_blocking && ./01'* ]]
  make 01_blocking
  start_program "${commands[0]##* && }" 0
  grep -qF "It says \`$(sed -n "s/$port/8080/; /^listening/p" "$out")\`" \
    "$PROJECT/README.md"
  run bash -c "${commands[1]/8080/$port} 2>/dev/null"
  same "${output//$'\r'/}" "$(hello | tr -d '\r')"
}

@test "the pictures are drawn from a run" {
  "$TOOLS/timeline" "$BATS_TEST_TMPDIR"
  "$TOOLS/film" "$BATS_TEST_TMPDIR"
  cd "$BATS_TEST_TMPDIR"
  python3 -c 'import sys, xml.dom.minidom as dom; list(map(dom.parse, sys.argv[1:]))' \
    {blocking,timeline,film,film-still}.svg
  for picture in film.svg film-still.svg; do
    run ! grep -q '<script' "$picture"
    grep -q '>epoll_ctl MOD [0-9]* OUT<' "$picture" # 04 alone
    grep -q '>accept4(.*) = EAGAIN<' "$picture" # 05 alone
  done
}
