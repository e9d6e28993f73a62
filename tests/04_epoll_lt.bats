#!/usr/bin/env bats
# What only 04_epoll_lt does.

load common

# bats test_tags=whole,economy
@test "04_epoll_lt: a GET costs six calls, besides the waits and the console" {
  trace_gets 04_epoll_lt
  same "$(calls_of_gets)" 'accept4 10
close 10
epoll_ctl 20
recvfrom 10
sendto 10'
  # The interest of each connection is registered once, and changed once.
  same "$(grep -c EPOLL_CTL_ADD "$log")" 11
  same "$(grep -c EPOLL_CTL_MOD "$log")" 10
}

# bats test_tags=whole,economy
@test "04_epoll_lt: a request of 4 KB is reported until all of it is read" {
  trace_long_request 04_epoll_lt
  # So often, the connection's.
  sed '/^accept.*= [0-9]/,/^close/!d' "$log" >"$log.its"
  same "$(grep -c '^epoll_p*wait2*(.*events=EPOLLIN,' "$log.its")" \
    "$(grep -cE '^(recv|read)[a-z]*\(.*= [1-9]' "$log.its")"
}
