#!/usr/bin/env bats
# What the stages do that serve more than one client: 02 to 06. The stage is
# named by $STAGE.

load common

@test "$STAGE: serves clients one after another, and keeps nothing of them" {
  start "$STAGE"
  local before i
  answers
  wait_until has_sockets established 0
  before=$(descriptors)
  for ((i = 0; i < 20; i++)); do
    answers
  done
  wait_until has_descriptors "$before"
}

# Brings the server into a state, with a client on $client.
silent_client() {
  connect
  wait_until has_read_all
}

client_in_mid_request() {
  connect
  printf 'GET / HT' >&"$client"
  wait_until has_read_all
}

client_that_still_sends() {
  connect
  printf 'POST / HTTP/1.0\nContent-Length: 9\n\n' >&"$client"
  grep -q 'Hello, world!' <(timeout "$DEADLINE" cat <&"$client")
  printf 'abc' >&"$client"
  wait_until has_read_all
}

@test "$STAGE: SIGINT and SIGTERM end it in every state, within a second" {
  local signal state began
  for signal in INT TERM; do
    for state in true silent_client client_in_mid_request \
      client_that_still_sends answers; do
      start "$STAGE"
      "$state"
      began=${EPOCHREALTIME/./}
      kill "-$signal" "$pid"
      ends_with 0
      echo "$signal, $state: $((${EPOCHREALTIME/./} - began)) microseconds"
      # A second, and another that a busy machine may take.
      ((${EPOCHREALTIME/./} - began < 2000000))
      same "$(cat "$err")" ''
    done
  done
}

@test "$STAGE: a signal ends it also while its console takes nothing" {
  local console=$BATS_TEST_TMPDIR/console reader
  mkfifo "$console"
  exec {reader}<>"$console"
  "$(program "$STAGE")" 0 >"$console" 2>"$BATS_TEST_TMPDIR/err" </dev/null 3>&- &
  pid=$!
  err=$BATS_TEST_TMPDIR/err
  echo "$pid" >>"$BATS_TEST_TMPDIR/pids"
  IFS= read -r -t "$DEADLINE" -u "$reader" out
  port=${out%/} port=${port##*:}
  # A request of 8 KB is 32 KB on the console, and a pipe takes 64 KB.
  local i long
  long=$(head -c 8000 /dev/zero | tr '\0' '\1')
  for i in 1 2 3; do
    connect
    printf 'GET /%s HTTP/1.0\n\n' "$long" >&"$client"
  done
  wait_until sleeps_in pipe_write
  kill -TERM "$pid"
  ends_with 0
}

# True when the server waits in a function of the kernel.
sleeps_in() { # function
  grep -q "$1" "/proc/$pid/wchan" "/proc/$pid/stack" 2>/dev/null ||
    grep -q '^1 ' "/proc/$pid/syscall" 2>/dev/null
}

@test "$STAGE: a signal that comes right behind the listening line ends it" {
  local i
  for ((i = 0; i < 20; i++)); do
    start "$STAGE"
    kill -TERM "$pid"
    ends_with 0
  done
}

@test "$STAGE: signals that its parent held back end it all the same" {
  RUN='env --block-signal=INT --block-signal=TERM' start "$STAGE"
  kill -TERM "$pid"
  ends_with 0
}

@test "$STAGE: a client that leaves in mid-request leaves nothing behind" {
  start "$STAGE"
  local before
  before=$(descriptors)
  client_in_mid_request
  disconnect "$client"
  # The tutorial's server keeps the socket in CLOSE_WAIT, and a core busy.
  wait_until has_sockets close-wait 0
  wait_until has_sockets established 0
  wait_until has_descriptors "$before"
  rests
  answers
}

@test "$STAGE: a client that half-closes in mid-request is closed" {
  start "$STAGE"
  same "$(ask_for 'GET / HTTP/1.0\r\n')" ''
  wait_until has_sockets close-wait 0
  answers
}

@test "$STAGE: a client that resets the connection ends nobody else" {
  start "$STAGE"
  local before
  before=$(descriptors)
  # Closing while the response is unread makes the kernel send a reset.
  connect
  printf 'POST / HTTP/1.0\nContent-Length: 9\n\n' >&"$client"
  wait_until client_has_response
  disconnect "$client"
  wait_until has_descriptors "$before"
  answers
}

client_has_response() {
  ss -Htn state established state close-wait "dport = :$port" |
    awk '$2 > 0 { found = 1 } END { exit !found }'
}

@test "$STAGE: a console that goes away does not end it" {
  local console=$BATS_TEST_TMPDIR/console reader
  mkfifo "$console"
  exec {reader}<>"$console"
  "$(program "$STAGE")" 0 >"$console" </dev/null 3>&- {reader}>&- &
  pid=$!
  echo "$pid" >>"$BATS_TEST_TMPDIR/pids"
  IFS= read -r -t "$DEADLINE" -u "$reader" out
  # shellcheck disable=SC2034 # for answers
  url=${out#listening on }
  disconnect "$reader"
  answers
  answers
}

@test "$STAGE: idle, with clients and without, it uses no CPU time" {
  start "$STAGE"
  rests
  silent_client
  rests
}

@test "$STAGE: the console separates requests by a line of 40 dashes" {
  start "$STAGE"
  ask_for 'GET /1 HTTP/1.0\n\n' >/dev/null
  ask_for 'GET /2 HTTP/1.0\n\n' >/dev/null
  local dashes
  dashes=$(printf -- '-%.0s' {1..40})
  same "$(grep -v -e '^listening' -e '^closed' "$out")" "$dashes
GET /1 HTTP/1.0

$dashes
GET /2 HTTP/1.0"
}

@test "$STAGE: valgrind finds no leak and no open descriptor at its end" {
  local log=$BATS_TEST_TMPDIR/valgrind
  RUN="valgrind --leak-check=full --track-fds=yes --log-file=$log" \
    PROGRAMS=$PROJECT DEADLINE=30 start "$STAGE"
  answers
  silent_client
  # Stage 02 has only begun with the first of these.
  connect
  printf 'GET / HT' >&"$client"
  connect
  printf 'POST / HTTP/1.0\nContent-Length: 9\n\nabc' >&"$client"
  [ "$STAGE" = 02_blocking_loop ] || wait_until has_read_all
  kill -TERM "$pid"
  DEADLINE=30 ends_with 0
  finds_nothing "$log"
}
