#!/usr/bin/env bats
# What only 06_tcp_options does.

load common

# Prints what the console says when a connection ends.
closing_line() {
  wait_until grep -q '^closed' "$out"
  sed -n '/^closed/s/).*/)/p' "$out" # a learner's may say more
}

# bats test_tags=whole
@test "06_tcp_options: without --cork, five pipelined responses leave in several segments" {
  # Up to 10, which need no ACK to leave (RFC 6928). In the plain mode, Nagle's algorithm
  # joins those that wait for one, and it depends on the kernel how soon it comes. A tail
  # loss probe (RFC 8985) is one more.
  for mode in plain --nodelay; do
    # shellcheck disable=SC2086 # a word, or none
    start 06_tcp_options ${mode#plain}
    connect
    send '%s\n' "$(requests 5)"
    gives 'hellos 5' receive_bytes 570
    disconnect "$client"
    few='([2-9]|1[0-2])'
    [ "$mode" = plain ] || few='1[0-2]'
    same "$(closing_line | sed -E "s/ in $few / in 10 /")" \
      "closed after 5 responses in 10 data segments (${mode#--})"
  done
}

@test "06_tcp_options: 8 or 16 pipelined responses leave in one segment, with --cork" {
  for number in 8 16; do
    start 06_tcp_options --cork
    ask < <(requests "$number") >/dev/null
    same "$(closing_line)" \
      "closed after $number responses in 1 data segments (cork)"
  done
}

# bats test_tags=whole
@test "06_tcp_options: with --cork, half a next request delays no response" {
  # Nor does a response wait that ends a turn, if no request follows: a recv, 15 sends.
  for requests in $'GET / HTTP/1.1\r\n\r\nGET / HTTP' \
    "$(requests 7)"$'\nHEAD / HTTP/1.1\r\n\r\n'; do
    RUN="strace -D -o ${log@Q} -e trace=setsockopt,sendto,sendmsg,writev" \
      start 06_tcp_options --cork
    connect
    send %s "$requests"
    gives 'hellos 1' receive_bytes 114
    wait_until is_quiet
    end_trace >/dev/null
    echo 'calls that take the cork out, or flush (tcp(7)), behind the last that sends:'
    # (What MSG_MORE and the cork do not hold back needs none.)
    same "$(awk '/^(send|writev)/ { last = !corked && !/MSG_MORE/ }
      /TCP_CORK/ { corked = /\[1\]/ }
      /TCP_CORK, \[0\]|TCP_NODELAY, \[1\]/ { last = 1 }
      END { print last }' "$log")" 1
  done
}

@test "06_tcp_options: the options save the 40 ms that Nagle and delayed ACK cost" {
  for option in --cork --nodelay; do
    start 06_tcp_options "$option"
    quickest=$(later_times | head -n 1) # of nine, on a machine that may be busy
    echo "seen: with $option, the quickest of nine responses takes $((10#$quickest / 1000)) ms"
    ((10#$quickest < 30000))
  done
}

# bats test_tags=whole
@test "06_tcp_options: it reports the end of each connection, whichever side ends it" {
  silent_client
  disconnect "$client"
  same "$(closing_line)" 'closed after 0 responses in 0 data segments (plain)'
  ask_for 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n' >/dev/null
  wait_until grep '^closed after 1 responses in 2 data segments' "$out"
}

# bats test_tags=whole
@test "06_tcp_options: if a closed window holds bytes back, its report says 'so far'" {
  start 06_tcp_options
  # Nobody reads what nc has read, and its buffer is small.
  mkfifo "$BATS_TEST_TMPDIR/full"
  exec {client}<>"$BATS_TEST_TMPDIR/full"
  requests 2000 >"$BATS_TEST_TMPDIR/requests"
  in_background nc -N -I 2304 127.0.0.1 "$port" <"$BATS_TEST_TMPDIR/requests" \
    >"$BATS_TEST_TMPDIR/full"
  [[ $(closing_line) =~ ^closed\ after\ 2000\ .*\ segments\ so\ far\ \(plain\)$ ]]
}
