#!/usr/bin/env bats
# What only 03_select does.

load common

# Leaves the test where no descriptor can be too high for an fd_set.
can_be_overfull() {
  local hard
  hard=$(ulimit -Hn)
  [ "$hard" = unlimited ] || ((hard >= 1200)) ||
    skip "only $hard descriptors can be open here"
}

# Starts the stage, and opens more connections than an fd_set can hold.
start_overfull() {
  can_be_overfull
  ulimit -n 1200
  RUN='prlimit --nofile=1200 --' start 03_select
  local i
  clients=()
  for ((i = 0; i < 1100; i++)); do
    connect
    clients+=("$client")
  done
  wait_until has_read_all
}

# bats test_tags=whole
@test "03_select: a client too many for an fd_set gets 503, and an end" {
  start_overfull
  # The last one, with a request sent late, and any other.
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  same "$(timeout "$DEADLINE" cat <&"$client")" \
    $'HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r'
  run curl -sS -o /dev/null -w '%{http_code}' "$url"
  same "$output" 503
  # Those inside are served, and leave room for others.
  client=${clients[0]}
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  same "$(timeout "$DEADLINE" cat <&"$client")" "$(hello 03_select)"
  disconnect "$client"
  answers
  rests
}

@test "03_select: says so when it is itself too many for an fd_set" {
  can_be_overfull
  local code=0
  # shellcheck disable=SC2016 # for the inner bash
  timeout 5 bash -c 'ulimit -n 1200
    for _ in {1..1100}; do exec {inherited}</dev/null; done
    exec "$0" 0 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3' \
    "$(program 03_select)" >"$BATS_TEST_TMPDIR/out" 2>&1 || code=$?
  same "$code" 1
  same "$(cat "$BATS_TEST_TMPDIR/out")" \
    '03_select: socket: Too many open files'
}

@test "03_select: the sets are made anew on every turn" {
  local log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log -e trace=pselect6" start 03_select
  connect
  wait_until grep -F '[3 5' "$log"
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  same "$(cat <&"$client")" "$(hello 03_select)"
  cat "$log"
  # First to read from the connection, then to write to it.
  grep -F ', [3 5], [], ' "$log"
  grep -F ', [3], [5], ' "$log"
}
