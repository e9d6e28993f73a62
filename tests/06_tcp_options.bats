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

# Prints the response so many times.
hellos() { # number
  local i
  for ((i = 0; i < $1; i++)); do
    hello 06_tcp_options
  done
}

# Prints what the console says when a connection ends.
closing_line() {
  wait_until grep -q '^closed' "$out"
  grep '^closed' "$out"
}

# Fails unless the server keeps the connection after this request, or not.
keeps() { # request-format
  same "$(ask_for "$1"'GET / HTTP/1.1\r\n\r\n' | grep -c 'Hello, world!')" 2
}

closes() { # request-format
  same "$(ask_for "$1"'GET / HTTP/1.1\r\n\r\n' | grep -o 'HTTP/1.1 200')" \
    'HTTP/1.1 200'
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
  run curl -sS -w ' %{num_connects}\n' "$url" "$url" "$url"
  same "$output" 'Hello, world! 1
Hello, world! 0
Hello, world! 0'
  closing_line | grep -F 'closed after 3 responses in 6 data segments (plain)'
}

@test "06_tcp_options: pipelined requests are answered in order" {
  same "$(ask_at_once 100)" "$(hellos 100)"
  same "$(grep -o '^GET /...' "$out" | sort -c && grep -c '^GET' "$out")" 100
}

@test "06_tcp_options: a request that is only part there waits for the rest" {
  local all
  all=$(requests 3)
  connect
  printf '%s' "${all:0:150}" >&"$client"
  same "$(timeout "$DEADLINE" head -c 114 <&"$client")" "$(hellos 1)"
  printf '%s\r\n\r\n' "${all:150}" >&"$client"
  same "$(timeout "$DEADLINE" head -c 228 <&"$client")" "$(hellos 2)"
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

# Prints the microseconds that the quickest of the later requests of ten on one
# connection has taken.
quickest() { # option...
  start 06_tcp_options "$@"
  # shellcheck disable=SC2046 # ten words
  curl -sS -o /dev/null -w '%{stderr}%{time_total}\n' \
    $(for _ in {1..10}; do echo "$url"; done) \
    2>"$BATS_TEST_TMPDIR/times" >/dev/null
  tail -n +2 "$BATS_TEST_TMPDIR/times" | tr -d . | sort | head -n 1
}

@test "06_tcp_options: Nagle and delayed ACK cost 40 ms, which the options save" {
  local plain cork nodelay
  plain=$(quickest)
  cork=$(quickest --cork)
  nodelay=$(quickest --nodelay)
  echo "microseconds: plain $plain, cork $cork, nodelay $nodelay"
  ((10#$plain >= 35000))
  ((10#$cork < 10000))
  ((10#$nodelay < 10000))
}

@test "06_tcp_options: with --cork, nothing is held back when all is answered" {
  start 06_tcp_options --cork
  connect
  requests 1 >&"$client"
  # The kernel would let a cork hold a response back for 200 ms.
  timeout 0.15 head -c 114 <&"$client" | grep -q 'Hello'
}

@test "06_tcp_options: HEAD gets the head alone" {
  same "$(ask_for 'HEAD / HTTP/1.1\r\n\r\nHEAD / HTTP/1.0\r\n\r\n')" \
    "$(hellos 1 | sed '$d')
$(hellos 1 | sed '$d')"
}

@test "06_tcp_options: a method that only begins like HEAD gets the body" {
  ask_for 'HELLO / HTTP/1.1\r\n\r\n' | grep -q 'Hello, world!'
}

@test "06_tcp_options: the next request has no say in this one's answer" {
  same "$(ask_for 'GET / HTTP/1.1\r\n\r\nConnection: close')" "$(hellos 1)"
  same "$(ask_for 'GET / HTTP/1.1\r\n\r\nConnection')" "$(hellos 1)"
  keeps 'GET / HTTP/1.1\r\n\r\nConnection: close\r\n\r\n'
  alive
}

@test "06_tcp_options: HTTP/1.1 without more keeps the connection" {
  keeps 'GET / HTTP/1.1\r\n\r\n'
  keeps 'GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n'
  keeps 'GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n'
  keeps 'GET / HTTP/1.1\n\n'
}

# bats test_tags=whole
@test "06_tcp_options: Connection: close, in any case, is answered and closed" {
  local line
  for line in 'Connection: close' 'connection:CLOSE' \
    'CONNECTION: upgrade, Close' 'Connection: a\r\nConnection: close'; do
    closes "GET / HTTP/1.1\r\n$line\r\n\r\n"
  done
  # The client asked for it, and gets the response as it is.
  same "$(ask_for 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n')" "$(hellos 1)"
}

# bats test_tags=whole
@test "06_tcp_options: HTTP/1.0, and no version, are answered and closed" {
  closes 'GET / HTTP/1.0\r\n\r\n'
  closes 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'
  closes 'GET /\r\n\r\n'
}

@test "06_tcp_options: behind a body or an unknown method nothing is a request" {
  local start
  for start in 'POST / HTTP/1.1' 'OPTIONS / HTTP/1.1' 'get / HTTP/1.1' \
    'GET / HTTP/1.1\r\nContent-Length: 5' 'GET / HTTP/1.1\r\ncontent-length:05' \
    'GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5' \
    'GET / HTTP/1.1\r\nContent-Length : 5' \
    'HEAD / HTTP/1.1\r\nTransfer-Encoding: chunked'; do
    closes "$start\r\n\r\n"
    # Here the client has to be told.
    ask_for "$start\r\n\r\n" | grep -q '^Connection: close'
  done
}

@test "06_tcp_options: a request too long in a pipeline ends it with 431" {
  same "$({
    requests 2
    head -c 9000 /dev/zero | tr '\0' a
  } | ask)" "$(hellos 2)$(too_large)"
}

# bats test_tags=whole
@test "06_tcp_options: a client that does not read is not read from" {
  local before other
  PROGRAMS=$PROJECT start 06_tcp_options # ASan keeps what is freed
  before=$(resident)
  connect
  other=$client
  requests 2000 >"$BATS_TEST_TMPDIR/requests"
  for _ in {1..1000}; do
    cat "$BATS_TEST_TMPDIR/requests" >&"$other" || break
  done 3>&- 2>/dev/null &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  # What it sends stays in the kernel, where its buffers are limited.
  wait_until is_not_read
  answers
  rests
  echo "resident: $before KB, then $(resident) KB"
  (($(resident) - before < 1000))
  kill -TERM "$pid"
  ends_with 0
}

# True when a client's bytes have waited for a while, and are not read.
is_not_read() {
  local first
  first=$(sockets established | awk '{ print $1 }')
  ((first > 10000)) && sleep 0.3 &&
    [ "$(sockets established | awk '{ print $1 }')" -ge "$first" ]
}

# Prints the server's resident memory in KB.
resident() {
  awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
}

@test "06_tcp_options: a client that reads late gets every response" {
  connect
  requests 5000 >"$BATS_TEST_TMPDIR/requests"
  cat "$BATS_TEST_TMPDIR/requests" >&"$client" 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  sleep 0.3 # the buffers fill
  same "$(timeout 30 head -c $((5000 * 114)) <&"$client" |
    grep -c 'Hello, world!')" 5000
}

@test "06_tcp_options: the time of a connection begins anew at each response" {
  start_program "$(build 06_tcp_options CPPFLAGS=-DIDLE_SECONDS=1)" --cork 0
  local began=${EPOCHREALTIME/./} i
  connect
  for i in 1 2 3; do
    requests 1 >&"$client"
    same "$(timeout "$DEADLINE" head -c 114 <&"$client")" "$(hellos 1)"
    sleep 0.6
  done
  timeout "$DEADLINE" cat <&"$client"
  began=$((${EPOCHREALTIME/./} - began))
  echo "closed after $began microseconds"
  ((began >= 2200000))
  same "$(closing_line)" 'closed after 3 responses in 3 data segments (cork)'
}

# bats test_tags=whole
@test "06_tcp_options: every connection's end is told, whoever ends it" {
  connect
  wait_until has_read_all
  disconnect "$client"
  same "$(closing_line)" 'closed after 0 responses in 0 data segments (plain)'
  connect
  requests 1 >&"$client"
  timeout "$DEADLINE" head -c 114 <&"$client"
  kill -TERM "$pid"
  ends_with 0
  same "$(grep -c '^closed after 1 responses in 2 data segments' "$out")" 1
}
