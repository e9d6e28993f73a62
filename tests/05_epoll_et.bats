#!/usr/bin/env bats
# What only 05_epoll_et does.

load common

# bats test_tags=whole
@test "05_epoll_et: a request of 4 KB is reported once" {
  RUN="strace -D -o ${log@Q}" start 05_epoll_et
  connect
  wait_until has_descriptors $((without_clients + 1))
  stop
  send 'GET /%04090d HTTP/1.0\n\n' 1
  wait_until has_arrived
  kill -CONT "$pid"
  gives hello receive
  end_trace >/dev/null
  # After some steps, the program may ask epoll to say it again.
  sed '/^--- stopped by/,/^close/!d' "$log" >"$log.its"
  reports=$(grep -cE '^epoll_p?wait2?\(.*EPOLLIN' "$log.its" || true)
  asked=$(grep -c EPOLL_CTL_MOD "$log.its" || true)
  reads=$(grep -cE '^(recv|read)[a-z]*\(.*= [1-9]' "$log.its" || true)
  echo "seen: $reports reports, $asked of them asked for, and $reads calls that read"
  ((reports <= 1 + asked && (reports < reads || reports == 1)))
}

# bats test_tags=waits
@test "05_epoll_et: it serves clients that come while it accepts another" {
  RUN=$(injecting accept,accept4 delay_exit=200000) start 05_epoll_et
  answers
  answers
  connect_many 3 'GET / HTTP/1.0\n\n'
  gives 'hellos 3' receive_from_each 114
}

@test "05_epoll_et: it answers a request, whichever step of a turn completes it" {
  RUN=$(preload fault FAULT_SIZE=one) start 05_epoll_et # a byte a step
  for length in {1..16}; do # MAX_STEPS
    connect
    send "GET /%0${length}d HTTP/1.0\n\n" 1
    gives hello receive
    disconnect "$client"
    connect
    send "POST /%0${length}d HTTP/1.0\n\n" 1
    gives hello receive
    printf 'abc' >&"$client"
    clients+=("$client")
  done
  wait_read "${clients[@]}" # and not only when they close
  # A turn is not enough for any of these, which are more than one wait reports.
  connect_many 70
  stop
  for client in "${clients[@]}"; do
    printf 'POST / HTTP/1.0\n\n%0400d' 1 >&"$client"
  done
  wait_until has_arrived
  kill -CONT "$pid"
  wait_read "${clients[@]}"
}

# bats test_tags=whole
@test "05_epoll_et: when a client leaves right after its last bytes, the server closes too" {
  wait_until keeps_time_wait || skip 'there is no room for sockets in TIME_WAIT'
  RUN="strace -D -o ${log@Q} -e trace=$WAITS" start 05_epoll_et
  connect
  # More than a turn reads, so that epoll is asked to say it again.
  stop
  send 'POST / HTTP/1.0\n\n%020000d' 1
  wait_until has_arrived
  kill -CONT "$pid"
  gives hello receive
  wait_read # and all of its waits are in the trace
  tries=40 rests # strace stops it at each call
  if grep -E ', [1-9][0-9]*(, NULL, 8)?\) += 0$|tv_n?sec=[1-9].* = 0$' "$log"; then
    echo 'seen: the server waited for a time, though bytes were there'
    return 1
  fi
  echo 'open descriptors, while the client is still connected:'
  same "$(descriptors)" $((without_clients + 1))
  # Then the last bytes and the end at once.
  stop
  send 'abc'
  disconnect "$client"
  wait_until has_sockets time-wait 1
  kill -CONT "$pid"
  wait_until has_descriptors "$without_clients"
}
