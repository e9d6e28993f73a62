#!/usr/bin/env bats
# What the stages do that serve more than one client: 02 to 06. The stage is
# named by $STAGE.

load common

@test "$STAGE: it serves clients one after another, and closes each connection" {
  for _ in {1..20}; do
    answers
  done
  wait_until has_descriptors "$without_clients"
  accepts_behind "$STAGE"
}

@test "$STAGE: a signal ends it even while its console is blocked" {
  start_on_pipe
  # A request of 8 KB is 32 KB on the console, and a pipe takes 16 pages.
  long=$(printf '\1%.0s' {1..8000})
  connect_many $(($(getconf PAGESIZE) / 1365)) 'GET /%s HTTP/1.0\n\n' "$long"
  wait_until has_arrived
  wait_until is_quiet
  end_by TERM
}

@test "$STAGE: when a client leaves in mid-request, the server closes too" {
  client_in_mid_request
  disconnect "$client"
  # The tutorial's server keeps the socket in CLOSE_WAIT, and a core busy.
  wait_until has_descriptors "$without_clients"
  rests
  answers
}

@test "$STAGE: half a request does not get into the next client's request" {
  start "$STAGE"
  for way in true "$PROJECT/tests/reset"; do # it leaves, or resets the connection
    client_in_mid_request
    "$way" <&"$client"
    disconnect "$client"
  done
  ask_for 'GET /whole HTTP/1.0\n\n' >/dev/null
  same "$(shown GET)" 'GET /whole HTTP/1.0'
  # Nor is what a whole one has left in memory.
  local text='GET / HTTP/1.0\nA: more than free() writes over\n'
  gives hello ask_for "$text\n"
  gives true ask_for "$text"
}

@test "$STAGE: when a client half-closes, the server closes" {
  gives true ask_for 'GET / HTTP/1.0\r\n'
  wait_until has_descriptors "$without_clients"
  answers
}

@test "$STAGE: a client that resets its connection does no harm" {
  # Closing while the response is unread makes the kernel send a reset.
  connect 'POST / HTTP/1.0\nContent-Length: 9\n\n'
  wait_until has_response
  disconnect "$client"
  wait_until has_descriptors "$without_clients"
  answers
}

@test "$STAGE: when a call on a client's socket fails, it closes only that client" {
  for call in recvfrom sendto; do
    # (Without -f: each process would have a first call of its own.)
    RUN="strace -D -o ${log@Q} -e trace=$call -e inject=$call:error=EHOSTUNREACH:when=1" \
      start "$STAGE"
    connect
    send 'GET / HTTP/1.0\n\n' # in one piece: the rest of it would meet a reset
    receive >"$BATS_TEST_TMPDIR/response" || (($? != 124)) || # it may be reset
      { echo 'seen: the server keeps the client' && return 1; }
    disconnect "$client"
    ! grep -q INJECTED "$log" || same "$(<"$BATS_TEST_TMPDIR/response")" ''
    wait_until has_descriptors "$without_clients"
    answers
  done
}

@test "$STAGE: a client that has gone before it is answered does no harm" {
  answers_the_gone "$STAGE" "$(printf '%08193d' 1)" # which the console does not show
  answers_the_gone "$STAGE" $'GET / HTTP/1.0\n'
}

@test "$STAGE: the console shows each request after a line of 40 dashes" {
  ask_for 'GET /1 HTTP/1.0\n\nmore' >/dev/null
  ask_for 'GET /2 HTTP/1.0\n\n' >/dev/null
  dashes=$(printf -- '-%.0s' {1..40})
  same "$(shown -v -e '^listening' -e '^closed')" "$dashes
GET /1 HTTP/1.0

$dashes
GET /2 HTTP/1.0"
}

# bats test_tags=waits
@test "$STAGE: when accept fails, it says so once, and later serves those who wait" {
  survives_accept "$STAGE"
}

# Lets 128 clients, which any backlog holds, leave in mid-request, as many before they
# are answered, and as many behind the response.
come_and_go() {
  resets 0 128 <<<'GET / HT'
  resets 0 128 half <<<$'GET / HTTP/1.0\n'
  resets 150 128 <<<$'GET / HTTP/1.0\n'
  answers
}

@test "$STAGE: clients that come and go do not make its memory grow" {
  local limit=4
  ! grep -q __asan_ "$(program "$STAGE")" || limit=300 # ASan keeps some
  RUN='env ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=0' start "$STAGE"
  [ "$STEP" = 02 ] || connect_many 100 # who stay
  come_and_go
  # A leak grows in every round; what the most clients at a time need does not.
  for _ in {1..10}; do
    before=$(resident)
    come_and_go
    echo "resident: $before KB, then $(resident) KB"
    (($(resident) - before >= limit)) || return 0
  done
  false
}
