#!/usr/bin/env bats
# What only 06_tcp_options does.

load common

# Prints so many requests. Each has the length of one of curl's.
requests() { # number
  local i
  for ((i = 1; i <= $1; i++)); do
    printf 'GET /%03d HTTP/1.1\r\nHost: 127.0.0.1\r\n' "$i"
    printf 'User-Agent: tests\r\nAccept: */*\r\n\r\n'
  done
}

# Sends so many requests in one piece, and half-closes.
ask_at_once() { # number
  requests "$1" >"$BATS_TEST_TMPDIR/requests"
  ask <"$BATS_TEST_TMPDIR/requests"
}

# Prints so many responses that keep the connection.
hellos() { # number
  awk -v n="$1" -v one="$(hello 06_tcp_options | sed '/^Connection: close/d')" \
    'BEGIN { while (n-- > 0) printf "%s", one }'
}

# Prints what the console says when a connection ends.
closing_line() {
  wait_until grep -q '^closed' "$out"
  grep '^closed' "$out"
}

# Fails unless the server keeps the connection after each of these requests.
keeps() { # request-format...
  local request
  for request in "$@"; do
    gives 'hellos 2' ask_for "$request"'GET / HTTP/1.1\r\n\r\n'
  done
}

# Fails unless it says that it ends the connection, and does.
closes() { # request-format...
  local request
  for request in "$@"; do
    gives 'hello 06_tcp_options' ask_for "$request"'GET / HTTP/1.1\r\n\r\n'
  done
}

setup() {
  start 06_tcp_options
}

@test "06_tcp_options: both options at once are refused" {
  run --separate-stderr timeout 5 "$(program 06_tcp_options)" --cork --nodelay
  same "$status" 2
  [[ ${stderr_lines[0]} == "06_tcp_options: "*"'--nodelay'" ]]
}

# bats test_tags=whole
@test "06_tcp_options: curl makes several requests on one connection" {
  run curl -sS --max-time "$DEADLINE" -w ' %{num_connects}\n' \
    "$url" "$url" "$url"
  same "$output" 'Hello, world! 1
Hello, world! 0
Hello, world! 0'
  closing_line | grep -F 'closed after 3 responses in 6 data segments (plain)'
}

@test "06_tcp_options: pipelined requests are answered in order" {
  gives 'hellos 100' ask_at_once 100
  same "$(grep -o '^GET /...' "$out" | sort -c && grep -c '^GET' "$out")" 100
}

@test "06_tcp_options: a request that is only part there waits for the rest" {
  local all
  all=$(requests 3)
  connect
  printf '%s' "${all:0:150}" >&"$client"
  gives 'hellos 1' receive_bytes 114
  printf '%s\r\n\r\n' "${all:150}" >&"$client"
  gives 'hellos 2' receive_bytes 228
}

# bats test_tags=whole
@test "06_tcp_options: eight pipelined requests leave as 16 segments, plain" {
  # The client does not read meanwhile: each time it does, it may send an ACK,
  # and it has only 16 to send at once before it begins to delay them.
  requests 8 >"$BATS_TEST_TMPDIR/requests"
  connect
  cat "$BATS_TEST_TMPDIR/requests" >&"$client"
  wait_until has_come $((8 * 114))
  disconnect "$client"
  same "$(closing_line)" 'closed after 8 responses in 16 data segments (plain)'
}

# True when so many bytes wait for the client to read them.
has_come() { # number
  ss -Htn "dport = :$port" | awk -v n="$1" '$2 == n { f = 1 } END { exit !f }'
}

# bats test_tags=whole
@test "06_tcp_options: eight pipelined requests leave as 16 with --nodelay" {
  start 06_tcp_options --nodelay
  ask_at_once 8 >/dev/null
  same "$(closing_line)" \
    'closed after 8 responses in 16 data segments (nodelay)'
}

@test "06_tcp_options: 8 and 16 pipelined requests leave as 1 with --cork" {
  local number
  for number in 8 16; do
    start 06_tcp_options --cork
    ask_at_once "$number" >/dev/null
    same "$(closing_line)" \
      "closed after $number responses in 1 data segments (cork)"
  done
}

# Sorts the microseconds that the later requests of ten on one connection have
# taken, and prints those of the first, the quickest, or of another one.
request_time() { # which option...
  local which=$1
  shift
  start 06_tcp_options "$@"
  # shellcheck disable=SC2046 # ten words
  curl -sS --max-time "$DEADLINE" -o /dev/null -w '%{stderr}%{time_total}\n' \
    $(for _ in {1..10}; do echo "$url"; done) \
    2>"$BATS_TEST_TMPDIR/times" >/dev/null
  tail -n +2 "$BATS_TEST_TMPDIR/times" | tr -d . | sort | sed -n "${which}p"
}

@test "06_tcp_options: Nagle and delayed ACK cost 40 ms, which the options save" {
  local plain cork nodelay
  plain=$(request_time 5)
  cork=$(request_time 1 --cork)
  nodelay=$(request_time 1 --nodelay)
  echo "microseconds: plain $plain, cork $cork, nodelay $nodelay"
  ((10#$plain >= 35000))
  ((10#$cork < 10000))
  ((10#$nodelay < 10000))
}

@test "06_tcp_options: HEAD gets the head alone" {
  gives "hellos 1 | head -c -13; hello 06_tcp_options | head -c -13" \
    ask_for 'HEAD / HTTP/1.1\r\n\r\nHEAD / HTTP/1.0\r\n\r\n'
}

@test "06_tcp_options: the next request has no say in this one's answer" {
  local field
  for field in 'Connection: close' 'Content-Length: 5' \
    'Transfer-Encoding: a'; do
    gives 'hellos 1' ask_for "GET / HTTP/1.1\r\n\r\n$field"
    # It is one itself, without a version or a method.
    gives 'hellos 1; hello 06_tcp_options' \
      ask_for "GET / HTTP/1.1\r\n\r\n$field\r\n\r\n"
  done
}

@test "06_tcp_options: HTTP/1.1 without more keeps the connection" {
  keeps 'GET / HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\n\n' \
    'GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n'
}

@test "06_tcp_options: only a field called Connection can ask for its end" {
  keeps 'GET /close HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\nA: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nX-Connection: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nConnection: a\r\nA: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nA: close\r\nConnection: a\r\n\r\n' \
    'GET /Content-Length HTTP/1.1\r\nA: Transfer-Encoding\r\n\r\n'
}

# bats test_tags=whole
@test "06_tcp_options: Connection: close, in any case, is answered and closed" {
  local line
  for line in 'Connection: close' 'connection:CLOSE' \
    'CONNECTION: upgrade, Close' 'Connection: a\r\nConnection: close' \
    'Connection: a\r\nA: b\r\nConnection: b\r\nconnection: close'; do
    closes "GET / HTTP/1.1\r\n$line\r\n\r\n"
  done
}

# bats test_tags=whole
@test "06_tcp_options: HTTP/1.0, and no version, are answered and closed" {
  closes 'GET / HTTP/1.0\r\n\r\n' 'GET /\r\n\r\n' \
    'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n' \
    'GET /HTTP/1.1 HTTP/1.0\r\nA: HTTP/1.1\r\n\r\n'
}

@test "06_tcp_options: behind a body or an unknown method nothing is a request" {
  local start
  for start in 'POST / HTTP/1.1' 'OPTIONS / HTTP/1.1' 'get / HTTP/1.1' \
    'GETX / HTTP/1.1' 'HEADX / HTTP/1.1' 'HELLO / HTTP/1.1' \
    'GET / HTTP/1.1\r\nContent-Length: 5' \
    'GET / HTTP/1.1\r\ncontent-length:05' \
    'GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5' \
    'GET / HTTP/1.1\r\nContent-Length : 5' \
    'GET / HTTP/1.1\r\nTransfer-Encoding: chunked'; do
    closes "$start\r\n\r\n"
  done
}

@test "06_tcp_options: a request with a NUL in it is the last, with its body" {
  closes 'GET / HTTP/1.1\r\nA: \0\r\nContent-Length: 18\r\n\r\n' \
    'GET /\0 HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\n\0\r\n\r\n'
}

@test "06_tcp_options: a request too long in a pipeline ends it with 431" {
  {
    requests 2
    head -c 9000 /dev/zero | tr '\0' a
  } >"$BATS_TEST_TMPDIR/requests"
  gives 'hellos 2; too_large' ask <"$BATS_TEST_TMPDIR/requests"
}

# bats test_tags=whole
@test "06_tcp_options: a client that does not read is not read from" {
  local before
  start 06_tcp_options
  answers # so that the pages of what answers are in memory
  before=$(resident)
  pipeline_without_reading
  # What it sends stays in the kernel, where its buffers are limited.
  DEADLINE=30 wait_until is_not_read
  answers
  rests
  echo "resident: $before KB, then $(resident) KB"
  (($(resident) - before < 1000))
}

# Connects, and sends more requests than all buffers hold, in the background.
pipeline_without_reading() {
  connect
  timeout 20 yes $'GET / HTTP/1.1\r\n\r' >&"$client" 3>&- 2>/dev/null &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
}

# bats test_tags=whole
@test "06_tcp_options: a client that reads late gets every response" {
  # More than all buffers hold, on both sides.
  local number=150000
  connect
  yes $'GET / HTTP/1.1\r\n\r' | head -n $((2 * number)) >&"$client" 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  DEADLINE=60 wait_until is_not_read
  DEADLINE=60 gives "hellos $number" receive_bytes $((114 * number))
}

# --- Its time: here, connections have a second --------------------------------

setup_file() {
  local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR
  HASTY=$(build 06_tcp_options CPPFLAGS=-DIDLE_SECONDS=1)
  export HASTY
}

# Starts it anew, and connects.
start_hasty() { # option...
  start_program "$HASTY" "$@" 0
  without_clients=$(descriptors)
  began=${EPOCHREALTIME/./}
  connect
}

# Fails unless the server ends all connections when their second has passed, and
# before another two have: three more, or so many, are for a busy machine.
ends_them_in_time() { # [seconds]
  wait_until has_descriptors "$without_clients"
  began=$((${EPOCHREALTIME/./} - began))
  echo "closed after $began microseconds"
  ((began >= 1000000 && began < (3 + ${1-3}) * 1000000))
}

@test "06_tcp_options: a client that stays silent is closed after IDLE_SECONDS" {
  start_hasty
  gives true receive
  ends_them_in_time
  answers
}

@test "06_tcp_options: a byte now and then does not help a client over its time" {
  start_hasty
  for _ in {1..80}; do
    printf 'x' >&"$client" || break
    sleep 0.1
  done 2>/dev/null 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  ends_them_in_time
}

@test "06_tcp_options: a client that does not close has IDLE_SECONDS for it" {
  start_hasty
  printf 'POST / HTTP/1.0\n\n' >&"$client"
  gives 'hello 06_tcp_options' receive
  ends_them_in_time
}

# bats test_tags=whole
@test "06_tcp_options: one that takes no response has IDLE_SECONDS for it" {
  start_hasty
  disconnect "$client"
  pipeline_without_reading
  DEADLINE=20 ends_them_in_time 12 # the buffers have to fill first
}

@test "06_tcp_options: the time of a connection begins anew at each response" {
  start_hasty --cork
  for _ in 1 2 3; do
    requests 1 >&"$client"
    gives 'hellos 1' receive_bytes 114
    sleep 0.6
  done
  began=$((began + 1200000)) # it was not closed between them
  gives true receive
  ends_them_in_time
  same "$(closing_line)" 'closed after 3 responses in 3 data segments (cork)'
}

@test "06_tcp_options: silent clients that fill its table are closed in time" {
  RUN='prlimit --nofile=16 --' start_program "$HASTY" 0
  local i
  for ((i = 0; i < 20; i++)); do
    connect
  done
  wait_until grep -q 'Too many open files' "$err"
  answers
}

# bats test_tags=whole
@test "06_tcp_options: requests that came while it was stopped are answered" {
  local i clients=()
  start_program "$HASTY" 0
  kill -STOP "$pid"
  # More than it hears of in one turn.
  for ((i = 0; i < 80; i++)); do
    connect
    printf 'GET / HTTP/1.1\r\n\r\n' >&"$client"
    clients+=("$client")
  done
  kill -CONT "$pid"
  wait_until has_shown 80
  kill -STOP "$pid"
  for client in "${clients[@]}"; do
    printf 'GET / HTTP/1.1\r\n\r\n' >&"$client"
  done
  sleep 3 # longer than their time
  kill -CONT "$pid"
  gives 'hellos 160' receive_from_each 228
}

has_shown() { # number-of-requests
  [ "$(grep -c '^GET' "$out")" -eq "$1" ]
}

# bats test_tags=whole
@test "06_tcp_options: it wakes no more than once in IDLE_SECONDS for nothing" {
  log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log -e trace=$WAITS" start_program "$HASTY" 0
  sleep 3
  end_trace
  (($(grep -c '^epoll' "$log") <= 4))
}

# bats test_tags=whole
@test "06_tcp_options: every connection's end is told, whoever ends it" {
  connect
  wait_until has_read_all
  disconnect "$client"
  same "$(closing_line)" 'closed after 0 responses in 0 data segments (plain)'
  ask_for 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n' >/dev/null
  wait_until grep '^closed after 1 responses in 2 data segments' "$out"
}
