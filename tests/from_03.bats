#!/usr/bin/env bats
# What the stages do that serve many clients at once: 03 to 06. The stage is
# named by $STAGE.

load common

@test "$STAGE: a quick client does not wait for slow ones" {
  start "$STAGE"
  local i
  for ((i = 0; i < 100; i++)); do
    connect
    ((i % 2)) && printf 'GET / HT' >&"$client"
  done
  answers
  # The slow ones are served as well, when they get on.
  printf 'TP/1.0\n\n' >&"$client"
  same "$(cat <&"$client")" "$(hello)"
}

@test "$STAGE: two requests that come by turns, line by line, are kept apart" {
  start "$STAGE"
  local first second
  connect
  first=$client
  connect
  second=$client
  printf 'GET /first HTTP/1.0\r\n' >&"$first"
  printf 'GET /second HTTP/1.0\r\n' >&"$second"
  wait_until has_read_all
  printf 'A: first\r\n\r\n' >&"$first"
  same "$(cat <&"$first")" "$(hello)"
  printf 'A: second\r\n\r\n' >&"$second"
  same "$(cat <&"$second")" "$(hello)"
  same "$(grep -e first -e second "$out")" 'GET /first HTTP/1.0
A: first
GET /second HTTP/1.0
A: second'
}

@test "$STAGE: a client that never stops sending keeps nobody waiting" {
  # With a recv() this slow, there is always more to read.
  RUN='strace -D -o /dev/null -e trace=recvfrom
    -e inject=recvfrom:delay_exit=200' start "$STAGE"
  connect
  printf 'POST / HTTP/1.0\n\n' >&"$client"
  timeout 20 cat /dev/zero >&"$client" 3>&- 2>/dev/null &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  answers
  answers
  kill -TERM "$pid"
  ends_with 0
}

# Starts the stage built so that a connection has one second, and connects.
start_hasty() {
  start_program "$(build "$STAGE" CPPFLAGS=-DIDLE_SECONDS=1)" 0
  without_clients=$(descriptors)
  connect
}

# Fails unless the server ends the connection on $client in a second or so.
is_ended_in_time() {
  local began=$SECONDS
  timeout "$DEADLINE" cat <&"$client" >/dev/null
  wait_until has_descriptors "$without_clients"
  ((SECONDS - began <= 4))
}

@test "$STAGE: a client that stays silent is closed after IDLE_SECONDS" {
  start_hasty
  is_ended_in_time
  answers
}

@test "$STAGE: a byte now and then does not help a client over its time" {
  start_hasty
  for _ in {1..40}; do
    printf 'x' >&"$client" || break
    sleep 0.1
  done 2>/dev/null 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  is_ended_in_time
}

@test "$STAGE: a client that does not close has IDLE_SECONDS for it" {
  start_hasty
  printf 'POST / HTTP/1.0\n\n' >&"$client"
  is_ended_in_time
}

@test "$STAGE: without clients it sleeps without a time limit" {
  local log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log -e trace=pselect6,epoll_pwait" start "$STAGE"
  answers
  connect
  disconnect "$client"
  wait_until has_sockets established 0
  end_trace
  # Both the first wait and the last one, which the signal has ended.
  case $STAGE in
  03_*) local limitless='], NULL, NULL, {sigmask=' ;;
  *) local limitless=', 64, -1, ' ;;
  esac
  head -n 1 "$log" | grep -F -e "$limitless"
  grep -F -B 1 -e '--- SIGTERM' "$log" | grep -F -e "$limitless"
}

@test "$STAGE: with clients it sleeps until the first one is out of time" {
  local log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log -e trace=pselect6,epoll_pwait" start "$STAGE"
  connect
  sleep 1 # time for turns that should not be
  connect
  wait_until has_read_all
  connect # strace shows a wait's limit when it is over
  wait_until grep -qE 'tv_sec=2[89], tv_nsec=[^0]|, 64, 2[89]..., ' "$log"
  (($(wc -l <"$log") <= 8))
}

@test "$STAGE: out of descriptors, it serves those inside and then the others" {
  start_crowded "$STAGE"
  # Those inside are served: each leaves, and lets another one in.
  for client in "${crowd[@]}"; do
    printf 'GET / HTTP/1.0\n\n' >&"$client"
    same "$(timeout "$DEADLINE" cat <&"$client")" "$(hello)"
    disconnect "$client"
  done
  answers
  same "$(wc -l <"$err")" 1
  [[ $(cat "$err") == "$STAGE: accept"*": Too many open files" ]]
}

@test "$STAGE: out of descriptors, it does not spin" {
  start_crowded "$STAGE"
  rests
}

@test "$STAGE: no call on a socket can block" {
  local log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log -e trace=accept,accept4,fcntl" start "$STAGE"
  answers
  answers
  end_trace
  case $STAGE in
  03_*) same "$(grep -c 'F_SETFL, O_RDONLY|O_NONBLOCK) *= 0' "$log")" 3 ;;
  *) same "$(grep -c '^accept4(.*NULL, NULL, SOCK_NONBLOCK)' "$log")" \
    "$(grep -c '^accept' "$log")" ;;
  esac
}
