#!/usr/bin/env bats
# What only 01_blocking does.

load common

@test "01_blocking: does not serve a second client" {
  start 01_blocking
  stop # it may close its listening socket when it has a client
  connect
  first=$client
  connect 'GET / HTTP/1.0\n\n'
  kill -CONT "$pid"
  printf 'GET / HTTP/1.0\n\n' >&"$first"
  client=$first gives hello receive
  ends_with 0
  same "$(patiently cat <&"$client" 2>/dev/null)" ''
}

# Fails unless the program has ended because its client was gone.
blames_client() {
  ends_with 1
  same "$(tail -n 1 "$err")" \
    '01_blocking: the client left before it was answered'
}

@test "01_blocking: ends with 1, and says why, when its client leaves first" {
  for part in '' 'GET / HT'; do
    start 01_blocking
    connect "$part"
    disconnect "$client"
    blames_client
  done
  # Nor does it go on if recv() fails in a way that it does not expect.
  RUN=$(injecting recvfrom error=EHOSTUNREACH) start 01_blocking
  connect
  disconnect "$client"
  ends_with 1
  [ -s "$err" ] # in whichever words
}

@test "01_blocking: ends with 1, and says why, when its client has gone before it is accepted" {
  for half in '' half; do # after half, it is the response that cannot be sent
    start 01_blocking
    stop
    # shellcheck disable=SC2086 # a word, or none
    resets 0 1 $half <<<$'GET / HTTP/1.0\n'
    kill -CONT "$pid"
    blames_client
  done
}

@test "01_blocking: ends with 1, and says why, when it cannot accept" {
  RUN=$(injecting accept,accept4 error=ENFILE) start 01_blocking || true
  ends_with 1
  same "$(sed s/accept4/accept/ "$err")" '01_blocking: accept: Too many open files in system'
}
