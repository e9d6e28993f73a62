#!/usr/bin/env bats
# What only 02_blocking_loop does.

load common

@test "02_blocking_loop: while one client dawdles, nobody else is served" {
  connect 'GET / HT'
  first=$client
  connect 'GET / HTTP/1.0\n\n'
  hears_nothing
  printf 'TP/1.0\n\n' >&"$first"
  client=$first gives hello receive
  disconnect "$first"
  gives hello receive
}

# bats test_tags=whole
@test "02_blocking_loop: the listening socket never carries data" {
  RUN="strace -D -o ${log@Q} -e trace=network" start 02_blocking_loop
  answers
  answers
  end_trace
  same "$(grep -cE '^(recv|send)[a-z]*\(3,' "$log")" 0
  (($(grep -c '^accept[4(].*= [4-9]' "$log") >= 2))
}
