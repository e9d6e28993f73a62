#!/usr/bin/env bats
# What the stages do that serve more than one client: 02 to 06. The stage is
# named by $STAGE.

load common

@test "$STAGE: serves clients one after another, and keeps nothing of them" {
  start "$STAGE"
  local before i
  before=$(descriptors)
  for ((i = 0; i < 20; i++)); do
    answers
  done
  wait_until has_descriptors "$before"
}

@test "$STAGE: a signal ends it also while its console takes nothing" {
  local console=$BATS_TEST_TMPDIR/console reader
  mkfifo "$console"
  # shellcheck disable=SC2034 # for start_on
  exec {reader}<>"$console"
  start_on "$console"
  # A request of 8 KB is 32 KB on the console, and a pipe takes 64 KB.
  local long
  long=$(printf '\1%.0s' {1..8000})
  for _ in 1 2 3; do
    connect
    send 'GET /%s HTTP/1.0\n\n' "$long"
  done
  wait_until sleeps_in pipe_write
  end_by TERM
}

# True when the server waits in a function of the kernel.
sleeps_in() { # function
  grep -q "$1" "/proc/$pid/wchan" "/proc/$pid/stack" 2>/dev/null ||
    grep -q '^1 ' "/proc/$pid/syscall" 2>/dev/null
}

@test "$STAGE: a client that leaves in mid-request leaves nothing behind" {
  start "$STAGE"
  local before
  before=$(descriptors)
  client_in_mid_request
  disconnect "$client"
  # The tutorial's server keeps the socket in CLOSE_WAIT, and a core busy.
  wait_until has_descriptors "$before"
  rests
  answers
}

@test "$STAGE: what a client leaves half said is not the next one's" {
  start "$STAGE"
  client_in_mid_request
  disconnect "$client"
  ask_for 'GET /whole HTTP/1.0\n\n' >/dev/null
  same "$(grep GET "$out")" 'GET /whole HTTP/1.0'
}

@test "$STAGE: a client that half-closes in mid-request is closed" {
  start "$STAGE"
  local before
  before=$(descriptors)
  gives true ask_for 'GET / HTTP/1.0\r\n'
  wait_until has_descriptors "$before"
  answers
}

@test "$STAGE: a client that resets the connection ends nobody else" {
  start "$STAGE"
  local before
  before=$(descriptors)
  # Closing while the response is unread makes the kernel send a reset.
  connect
  printf 'POST / HTTP/1.0\nContent-Length: 9\n\n' >&"$client"
  wait_response
  disconnect "$client"
  wait_until has_descriptors "$before"
  answers
}

@test "$STAGE: a client that is gone when it is answered ends nobody else" {
  answers_the_gone "$STAGE" $'GET / HTTP/1.0\n\n'
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

# bats test_tags=waits
@test "$STAGE: a failure of accept is said once, and those who wait are served" {
  survives_accept "$STAGE"
}

@test "$STAGE: a client is not forgotten when accept finds one before it gone" {
  accepts_behind "$STAGE"
}
