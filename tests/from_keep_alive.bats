#!/usr/bin/env bats
# What the programs do that keep connections open: keep_alive and
# 06_tcp_options. The program is named by $STAGE.

load common

# Fails unless the server says that it ends the connection, and does.
closes() { # request-format...
  local request
  for request in "$@"; do
    gives 'hello' ask_for "$request"'GET / HTTP/1.1\r\n\r\n'
  done
}

@test "$STAGE: pipelined requests are answered in order" {
  gives 'hellos 100' ask < <(requests 100)
  same "$(shown -o '^GET /...' | sort -c && grep -c '^GET' "$out")" 100
}

@test "$STAGE: when a part of a request has arrived, it waits for the rest" {
  all=$(requests 3)
  connect '%s' "${all:0:150}"
  gives 'hellos 1' receive_bytes 114
  printf '%s\r\n\r\n' "${all:150}" >&"$client"
  gives 'hellos 2' receive_bytes 228
  # A line end that an earlier request left in memory does not end the next one.
  gives 'hellos 1' ask_for 'GET / HTTP/1.1\n\nGET / HTTP/1.1\nA: 12345678901\n'
}

@test "$STAGE: two requests in one piece are answered while the client stays" {
  connect
  for end in '\r\n\r\n' '\n\n'; do
    send "GET / HTTP/1.1${end}GET / HTTP/1.1$end"
    gives 'hellos 2' receive_bytes 228
  done
}

@test "$STAGE: without TCP options, the second response takes 40 ms" {
  start "$STAGE"
  # Nagle waits for an ACK of the head, and the client's kernel delays it.
  later=$(later_times)
  echo "microseconds, of the later responses: $later"
  ((10#$(sed -n 5p <<<"$later") >= 35000))
}

@test "$STAGE: it skips empty lines before a request" {
  local get='GET / HTTP/1.1'
  gives 'hellos 3' \
    ask_for "\r\n$get\r\n\r\n\r\n\n$get\n\n\r\n$get\r\n\r\n\r\n"
  # Cut anywhere, and any number of them, they are no request.
  connect
  for i in '\r' '\n\r' '\n\n' '\r\n\r\n'; do
    printf "$i" >&"$client"
    wait_read
  done
  printf '\r\n%.0s' {1..10000} >&"$client"
  printf 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n' >&"$client"
  gives hello receive
}

@test "$STAGE: a HEAD request gets the head alone" {
  gives 'hellos 1 | head -c -13; hello' \
    ask_for 'HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n'
  gives "hellos 1 | head -c -13; hello | head -c -13" \
    ask_for 'HEAD / HTTP/1.1\r\n\r\nHEAD / HTTP/1.0\r\n\r\n'
  gives 'hellos 1' ask_for 'GET /HEAD HTTP/1.1\r\nA: HEAD / HTTP/1.1\r\n\r\n'
}

@test "$STAGE: the next request does not change the answer to this one" {
  for field in 'Connection: close' 'Content-Length: 5' \
    'Transfer-Encoding: a'; do
    gives 'hellos 1' ask_for "GET / HTTP/1.1\r\n\r\nGET /\r\n$field"
    # It is one itself, without a version or a method.
    gives 'hellos 1; hello' \
      ask_for "GET / HTTP/1.1\r\n\r\n$field\r\n\r\n"
  done
}

@test "$STAGE: close and Content-Length count only where they belong" {
  for request in 'GET / HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\n\n' \
    "GET /$(printf '%02000d' 1) HTTP/1.1\r\n\r\n" \
    'GET / HTTP/1.1\r\nConnection: keep-alive, clos\r\n\r\n' \
    'GET /,close,a HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\nA: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nX-Connection: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nConnection: a\r\nA: close\r\n\r\n' \
    'GET / HTTP/1.1\r\nA: close\r\nConnection: a\r\n\r\n' \
    'GET / HTTP/1.1\r\nConnection: a\r\nA: b\r\n close\r\n\r\n' \
    'GET /Content-Length HTTP/1.1\r\nA: Transfer-Encoding\r\n\r\n'; do
    gives 'hellos 2' ask_for "$request"'GET / HTTP/1.1\r\n\r\n'
  done
}

# bats test_tags=whole
@test "$STAGE: after Connection: close, in capitals or not, it answers and closes" {
  for line in 'Connection: close' 'connection: CLOSE' 'Connection:close' \
    "A: $(printf '%02000d' 1)\r\nConnection: close" \
    "Connection: a$(printf '%02000d' 1), close" \
    'CONNECTION: upgrade, Close' 'Connection: a\r\nConnection: cLOSE' \
    'Connection : close' 'Connection:\r\n close' 'Connection: a,\n\tclose' \
    'Connection: close, a' 'A: b\nConnection: close\nC: d' \
    'Connection: a\r\nA: b\r\nConnection: b\r\nconnection: close'; do
    closes "GET / HTTP/1.1\r\n$line\r\n\r\n"
  done
}

# bats test_tags=whole
@test "$STAGE: after HTTP/1.0, or no version, it answers and closes" {
  closes 'GET / HTTP/1.0\r\n\r\n' 'GET /\r\n\r\n' 'GET /1\r\n\r\n' \
    'GET /HTTP/1.1\r\n\r\n' 'GET / http/1.1\r\n\r\n' 'GET / HTTP/1.10\r\n\r\n' \
    'GET / HTTP/1.1x\r\n\r\n' \
    'GET /\r\nHTTP/1.1\r\n\r\n' \
    'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n' \
    'GET /HTTP/1.1 HTTP/1.0\r\nA: HTTP/1.1\r\n\r\n'
}

@test "$STAGE: after an announced body or an unknown method, nothing is taken for a request" {
  for start in 'POST / HTTP/1.1' 'OPTIONS / HTTP/1.1' 'get / HTTP/1.1' \
    'head / HTTP/1.1' 'GETX / HTTP/1.1' 'HEADX / HTTP/1.1' 'HELLO / HTTP/1.1' \
    'GET / HTTP/1.1\r\nContent-Length: 5' \
    'GET / HTTP/1.1\r\ncontent-length:05' \
    'GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5' \
    'GET / HTTP/1.1\r\nContent-Length : 5' \
    'GET / HTTP/1.1\r\nTransfer-Encoding: chunked'; do
    closes "$start\r\n\r\n"
  done
  for start in 'Content-Length: 18' 'Transfer-Encoding: chunked'; do
    gives 'hello | head -c -13' \
      ask_for "HEAD / HTTP/1.1\r\n$start\r\n\r\nGET / HTTP/1.1\r\n\r\n"
  done
  gives 'hellos 1; hello' ask_for 'GET / HTTP/1.1\r\n\r\nGET /\0 HTTP/1.1\r\n\r\n'
}

@test "$STAGE: a request with a NUL byte is the last of its connection" {
  closes 'GET / HTTP/1.1\r\nA: \0\r\nContent-Length: 18\r\n\r\n' \
    'GET / HTTP/1.1\r\nA: b\0\0\r\nContent-Length: 18\r\n\r\n' \
    'GET /\0 HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\n\0\r\n\r\n' '\0GET / HTTP/1.1\r\n\r\n'
}

@test "$STAGE: when a pipelined request is too long, it answers 431 and closes" {
  printf '%s\n%09000d' "$(requests 2)" 1 >"$BATS_TEST_TMPDIR/requests"
  gives 'hellos 2; too_large' ask <"$BATS_TEST_TMPDIR/requests"
}

# bats test_tags=whole
@test "$STAGE: it stops reading from a client that does not read" {
  answers # so that the pages of what answers are in memory
  before=$(resident)
  pipeline_without_reading
  # What it sends stays in the kernel, where its buffers are limited.
  wait_until is_not_read
  answers
  tries=20 rests # the kernel may find room for a little more
  echo "resident: $before KB, then $(resident) KB"
  ! grep -q __asan_ "$(program "$STAGE")" || before=$((before + 3000)) # it keeps some
  (($(resident) - before < 1000))
}

# Connects, and sends more requests than all buffers hold, in the background.
pipeline_without_reading() {
  connect
  in_background yes $'GET / HTTP/1.1\r\n\r' 1>&"$client" 2>/dev/null
}

# bats test_tags=whole
@test "$STAGE: a client that reads late gets every response" {
  local number
  start_with_clock # a busy machine may need more than 30 seconds
  pipeline_without_reading
  wait_until is_not_read
  answers # and what waits for the other is still its own
  # More than the buffers on both sides hold.
  number=$(ss -4Htn "src 127.0.0.1:$port or dst 127.0.0.1:$port" |
    awk '{ held += $2 + $3 } END { print int(held / 114) + 1000 }')
  gives "hellos $number" receive_bytes $((114 * number))
}

# --- Its time ------------------------------------------------------------------

# Starts it with a clock that the test sets, at 1000, or so many, seconds.
start_with_clock() { # [seconds]
  clock=$BATS_TEST_TMPDIR/clock
  echo "${1-1000}" >"$clock"
  RUN="${RUN-} $(preload fault FAULT_CLOCK="${clock@Q}")" start "$STAGE"
  wait_until sleeps # and has looked at the clock
}

# Sets the clock forward when the server has looked at it for what came before,
# and wakes the server by another client.
later() { # seconds
  local now
  wait_until sleeps
  read -r now <"$clock"
  echo $((now + $1)) >"$clock"
  answers
  wait_until sleeps
}

# Fails unless the server ends its connections when 30 seconds have passed since it did
# something for them, and not a second before.
ends_them_in_time() {
  before=$(descriptors)
  later 29
  same "$(descriptors)" "$before"
  later 3
  wait_until has_descriptors "$without_clients"
}

@test "$STAGE: it closes a silent client after IDLE_SECONDS" {
  # The clock begins at 0 in a new virtual machine, and in a time namespace.
  for seconds in 0 1000; do
    start_with_clock "$seconds"
    silent_client
    ends_them_in_time
    gives true receive
  done
}

@test "$STAGE: an occasional byte gives a client no more time" {
  start_with_clock
  silent_client
  before=$(descriptors)
  for _ in 1 2; do
    printf 'x' >&"$client"
    wait_read
    later 14
  done
  same "$(descriptors)" "$before"
  printf 'x' >&"$client"
  wait_read
  later 4
  wait_until has_descriptors "$without_clients"
}

@test "$STAGE: a client has IDLE_SECONDS to close after its response" {
  start_with_clock
  connect 'POST / HTTP/1.0\n\n'
  gives 'hello' receive
  ends_them_in_time
}

# bats test_tags=whole
@test "$STAGE: a client has IDLE_SECONDS to take its response" {
  start_with_clock
  pipeline_without_reading
  wait_until is_not_read
  before=$(descriptors)
  later 29
  same "$(descriptors)" "$before"
  # Its time begins anew whenever the kernel finds room for a little more.
  for _ in {1..9}; do
    has_descriptors "$without_clients" || later 32
  done
  echo 'nine times IDLE_SECONDS later, descriptors are open:'
  same "$(descriptors)" "$without_clients"
}

@test "$STAGE: each response gives a client IDLE_SECONDS more" {
  start_with_clock
  connect
  for pause in 20 20 20 0; do
    requests 1 >&"$client"
    gives 'hellos 1' receive_bytes 114
    later "$pause"
  done
  ends_them_in_time
  gives true receive
}

@test "$STAGE: silent clients that hold all descriptors are closed in time" {
  RUN='prlimit --nofile=16 --' start_with_clock
  connect_many 14
  wait_until says 'Too many open files'
  PATIENCE=4 later 32 # it pauses for a second before it looks
}

# bats test_tags=whole
@test "$STAGE: it answers requests that arrived while it was stopped" {
  start_with_clock
  stop
  # More than it hears of in one turn.
  connect_many 80 'GET / HTTP/1.1\r\n\r\n'
  wait_until has_arrived
  kill -CONT "$pid"
  wait_until eval '(($(grep -c ^GET "$out") == 80))'
  stop
  for client in "${clients[@]}"; do
    printf 'GET / HTTP/1.1\r\n\r\n' >&"$client"
  done
  wait_until has_arrived
  echo 1040 >"$clock" # later than their time
  kill -CONT "$pid"
  gives 'hellos 160' receive_from_each 228
}

# bats test_tags=whole,waits
@test "$STAGE: it wakes up to close a client, and almost never for nothing" {
  RUN="strace -D -o ${log@Q} -e trace=$WAITS,accept,accept4,close" \
    start_program "$(build "$STAGE" CFLAGS=-O0 CPPFLAGS=-DIDLE_SECONDS=1)" 0
  connect
  PATIENCE=12 gives true receive # its clock has a say
  end_trace
  # Of the waits while the client was there, one ended by its time.
  (($(sed -n '/^accept.*= [0-9]/,/^close/p' "$log" | grep -c '^epoll.*= 0') <= 1))
}

# bats test_tags=whole,resident
@test "$STAGE: an idle connection has no buffer" {
  gives 'hellos 1' ask_for 'GET / HTTP/1.1\r\n\r\n'
  connect_many 200
  wait_read # the last one
  before=$(resident)
  for client in "${clients[@]}"; do
    printf 'GET / HTTP/1.1\r\n\r\n' >&"$client"
  done
  gives 'hellos 200' receive_from_each 114
  # A buffer would be 1 KB of memory each.
  echo "resident: $before KB, then $(resident) KB"
  (($(resident) - before < 100))
}

# Sets $spent to the CPU time that 50 requests with these fields cost.
spend() { # fields
  local before i
  read -r before _ <"/proc/$pid/schedstat"
  for ((i = 0; i < 50; i++)); do
    printf 'GET / HTTP/1.1\r\n%s\r\n\r\n' "$1"
  done >"$BATS_TEST_TMPDIR/requests"
  gives 'hellos 50' ask <"$BATS_TEST_TMPDIR/requests"
  read -r spent _ <"/proc/$pid/schedstat"
  spent=$((spent - before))
}

# bats test_tags=whole
@test "$STAGE: many Connection fields cost no more time than other fields" {
  start "$STAGE"
  fields=$(printf 'Connection:a\r\n%.0s' {1..550})
  other=$(printf 'Cannectian:a\r\n%.0s' {1..550})
  spend "$other" # the first ones cost more
  spend "$other"
  other=$spent
  spend "$fields"
  echo "nanoseconds: $spent, and of other fields $other"
  ((spent < 10 * other)) # 60 times, where all are searched for each
}
