#!/usr/bin/env bats
# That `make bench` still works: each part once, in a small form that takes
# seconds. What it measures that way is not looked at.

load common

setup() {
  results=$BATS_TEST_TMPDIR/results
  mkdir "$results"
  export TMPDIR=$BATS_TEST_TMPDIR # where what is left behind would be
}

bench() { # part...
  "$PROJECT/tests/bench/run" --small --to "$results" "$@"
}

# Measures a part, and fails unless the results then hold a line of numbers for each
# of the words, in the second or third field.
measures() { # part word...
  local part=$1 word
  run bench "$part"
  echo "$output"
  same "$status" 0
  cat "$results/results.tsv"
  same "$(head -n 1 "$results/results.tsv" | cut -f 1,6)" $'part\tmedian'
  same "$(grep -c "^# $part	20..-..-.. ..:..	.*	Linux " \
    "$results/results.tsv")" 1
  for word in "${@:2}"; do
    awk -F '\t' -v part="$part" -v word="$word" '
      $1 == part && ($2 == word || $3 == word) && NF == 9 &&
        $6 ~ /^[0-9.e+-]+$/ && $7 <= $6 && $6 <= $8 && $9 >= 1 { found = 1 }
      END { exit !found }' "$results/results.tsv" || {
      echo "nothing on $word"
      return 1
    }
  done
}

is_picture() { # name
  same "$(grep -oE '</?svg' "$results/$1")" $'<svg\n</svg'
}

# bats file_tags=waits
@test "the part cpu compares the servers, in a table, a file and a picture" {
  measures cpu 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et deferred \
    python nginx nginx-deferred
  is_picture cpu.svg
  grep -E '^04_epoll_lt +50 at once +microseconds +[0-9.]+' <<<"$output"
}

@test "the part idle measures with no idle connections and with many" {
  measures idle 03_select 04_epoll_lt 05_epoll_et 0 500
  is_picture idle.svg
  grep -E '^03_select +500 +microseconds +[0-9.]+ +[0-9.]+' <<<"$output"
}

# bats file_tags=waits_too
@test "the part memory measures idle connections, and replaces older results" {
  printf '%s\t1\t2\t3\t4\t5\t6\t7\t8\n' '# idle' idle memory \
    >"$results/results.tsv"
  measures memory 04_epoll_lt 05_epoll_et nginx '500 idle' 'each idle'
  same "$(grep -c '^\(# \)\?idle	1	2	3	4	5' "$results/results.tsv")" 2
  same "$(grep -c '^memory	1	' "$results/results.tsv")" 0
}

@test "the part calls names the system calls of a request" {
  measures calls 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et python \
    nginx accept4 epoll_ctl all
  grep -E '^02_blocking_loop +sendto +calls +1 ' <<<"$output"
}

@test "the part latency times 06's modes and counts their segments" {
  measures latency plain cork nodelay 'one at a time' '16 pipelined'
  is_picture latency.svg
  same "$(awk -F '\t' '$2 == "cork" && $3 == "16 pipelined" &&
    $4 ~ /for 16/ { print $6 }' "$results/results.tsv")" 1
}

# bats file_tags=
@test "stopped by SIGINT or SIGTERM, it leaves nothing running and no files" {
  for signal in INT TERM; do
    err=$BATS_TEST_TMPDIR/err
    # A command in the background would ignore SIGINT.
    in_background env --default-signal=INT MARK="$BATS_TEST_TMPDIR" \
      "$PROJECT/tests/bench/run" --to "$results" cpu >"$BATS_TEST_TMPDIR/out" 2>"$err"
    pid=$started
    wait_until grep -q 'cpu, 2 of' "$err"
    kill -s "$signal" "$pid"
    PATIENCE=9 ends_with $((128 + $(kill -l "$signal")))
    same "$(grep -lsa "MARK=$BATS_TEST_TMPDIR" /proc/[0-9]*/environ)" ''
    same "$(find "$BATS_TEST_TMPDIR" -maxdepth 1 -name 'tmp.*')" ''
    same "$(ls "$results")" ''
  done
}

@test "an unknown part is refused, with the usage" {
  run -2 bench cpus
  [[ $output == *'usage: run '*'cpu idle memory calls latency'* ]]
}

@test "the Python server to compare with gives the tutorial's response" {
  in_background python3 "$PROJECT/tests/bench/tutorial.py" 0 >/dev/null
  pid=$started
  wait_until eval 'port=$(ss -Hltnp | grep -oP "127.0.0.1:\K\d+(?= .*pid=$pid,)")'
  same "$(ask_for 'GET / HTTP/1.0\r\n\r\n')" "$(hello)"
}
