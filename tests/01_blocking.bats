#!/usr/bin/env bats
# What only 01_blocking does.

load common

setup() {
  start 01_blocking
}

@test "01_blocking: ends with 0 when it has served its client" {
  answers
  ends_with 0
  same "$(cat "$err")" ''
}

@test "01_blocking: does not serve a second client" {
  local first
  connect
  first=$client
  connect
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  printf 'GET / HTTP/1.0\n\n' >&"$first"
  same "$(cat <&"$first")" "$(hello 01_blocking)"
  ends_with 0
  same "$(cat <&"$client" 2>/dev/null)" ''
}

# Fails unless the program has ended because its client was gone.
blames_client() {
  ends_with 1
  same "$(cat "$err")" \
    '01_blocking: the client left before it was answered'
}

@test "01_blocking: ends with 1, and says why, when its client leaves first" {
  connect
  printf 'GET / HT' >&"$client"
  disconnect "$client"
  blames_client
}

@test "01_blocking: ends with 1, and says why, when its client says nothing" {
  same "$(ask </dev/null)" ''
  blames_client
}

@test "01_blocking: waits for as long as its client does" {
  connect
  printf 'GET / HTTP/1.0\n' >&"$client"
  sleep 1
  alive
  rests
  printf '\n' >&"$client"
  same "$(cat <&"$client")" "$(hello 01_blocking)"
}
