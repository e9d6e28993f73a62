#!/usr/bin/env bats
# What the stages do that serve many clients at once: 03 to 06. The stage is
# named by $STAGE.

load common

@test "$STAGE: a quick client does not wait for slow ones" {
  connect_many 100
  for ((i = 1; i < 100; i += 2)); do
    printf 'GET / HT' >&"${clients[i]}"
  done
  answers
  # The slow ones are served as well, when they get on.
  printf 'TP/1.0\n\n' >&"$client"
  gives hello receive
}

@test "$STAGE: clients that come together are all served" {
  connect_many 50
  wait_read # the last one
  accepted=("${clients[@]}")
  stop
  connect_many 50
  clients+=("${accepted[@]}")
  for client in "${clients[@]}"; do
    printf 'GET / HTTP/1.1\n\n' >&"$client"
  done
  kill -CONT "$pid"
  gives 'hellos 100' receive_from_each 114
}

@test "$STAGE: two requests that arrive in turns, line by line, are kept apart" {
  connect
  first=$client
  connect
  second=$client
  printf 'GET /first HTTP/1.0\r\n' >&"$first"
  printf 'GET /second HTTP/1.0\r\n' >&"$second"
  wait_read "$first" "$second"
  printf 'A: first\r\n\r\n' >&"$first"
  client=$first gives hello receive
  printf 'A: second\r\n\r\n' >&"$second"
  client=$second gives hello receive
  same "$(shown -e first -e second)" 'GET /first HTTP/1.0
A: first
GET /second HTTP/1.0
A: second'
}

# bats test_tags=whole
@test "$STAGE: a client that never stops sending does not keep others waiting" {
  RUN="strace -D -o ${log@Q} -e trace=recvfrom,recvmsg,read,readv" start "$STAGE"
  connect 'POST / HTTP/1.0\n\n'
  wait_until has_response # so it has begun
  wait_until sleeps
  stop
  in_background cat /dev/zero 1>&"$client" 2>/dev/null
  wait_until is_full # megabytes wait, whether cat gets the processor or not
  connect 'GET / HTTP/1.0\n\n'
  wait_until has_arrived
  kill -CONT "$pid"
  gives hello receive
  # It need not read 400 times before it looks at another client.
  reads=$(sed '/GET/q' "$log" | wc -l)
  echo "seen: another client waited while the server called recv $reads times"
  ((reads < 400))
}

# True when the client that was started last cannot send any more.
is_full() {
  set -- connected "dst 127.0.0.1:$port"
  ended "$started" || { sleeps "$started" && waits_for_room "$@" && nap 0.3 &&
    sleeps "$started" && waits_for_room "$@"; }
}

# bats test_tags=whole
@test "$STAGE: before it closes, it reads all that a half-closed client has sent" {
  for text in 'POST / HTTP/1.0\n\n%020000d' 'GET /%01500d'; do
    RUN="strace -D -o ${log@Q} -e trace=recvfrom,recvmsg,read,readv,splice" start "$STAGE"
    printf "$text" 1 >"$BATS_TEST_TMPDIR/sent"
    stop
    in_background ask <"$BATS_TEST_TMPDIR/sent" >/dev/null
    wait_until has_sockets close-wait 1
    kill -CONT "$pid"
    wait_until ended "$started" # so the server has accepted it
    wait_until has_descriptors "$without_clients"
    end_trace
    # Else its close() is a reset, and the response may be lost.
    read=$(sed -nE '1,/^--- stopped by/d; s/^(recv|read|splice)[a-z]*\(.* = //p' "$log" |
      awk '$1 > 0 { read += $1 } END { print read + 0 }')
    echo "seen: of $(wc -c <"$BATS_TEST_TMPDIR/sent") bytes, it read $read"
    ((read >= $(wc -c <"$BATS_TEST_TMPDIR/sent")))
  done
}

# bats test_tags=whole
@test "$STAGE: while nothing happens, it does not wake up" {
  RUN="strace -D -o ${log@Q} -e trace=$WAITS" start "$STAGE"
  answers
  silent_client
  before=$(descriptors)
  silent_client
  disconnect "$client"
  wait_until has_descriptors "$before"
  wait_until sleeps
  end_trace >/dev/null
  # 06 has a look now and then; epoll_pwait2() has a struct for that; 03 may use poll().
  local limit='(\]|0x[0-9a-f]+), [0-9]+, (-1[,)]|NULL,|0x|([5-9]|[1-9][0-9])[0-9]{3}[,)]|\{tv_sec=([5-9]|[1-9][0-9]))'
  [[ $STAGE != 03_* ]] || limit+='|(\]|NULL), NULL, (NULL|\{sigmask=.*\})\) '
  # Both the first wait (a look is none) and the last one, which the signal has ended.
  both=$(grep -vE -m 1 ', 0(, NULL, 8)?\) += ' "$log"
    grep -F -B 1 -m 1 -e '--- SIGTERM' "$log" | head -n 1)
  printf 'seen: %s\n' 'one of these waits has a limit of less than 5 seconds:' "$both"
  (($(grep -cE -e "$limit" <<<"$both") == 2))
}

@test "$STAGE: when a signal interrupts its wait, it waits again; when the wait fails, it says so and ends" {
  RUN=$(injecting "$WAITS" error=EINTR:when=1+3) start "$STAGE" # it may wait twice a turn
  answers
  answers
  same "$(<"$err")" ''
  RUN=$(injecting "$WAITS" error=ENOMEM) start "$STAGE" || true
  ends_with 1
  # The program may name any of the calls that wait, and two threads may do so.
  same "$(sed 's/: .*:/:/; q' "$err")" "$STAGE: Cannot allocate memory"
}

@test "$STAGE: when recv or send says EINTR or EAGAIN, it tries again" {
  # Where it is told once, EAGAIN would be a lie: epoll(7).
  # shellcheck disable=SC2046 # a word, or none
  repeats_calls "$STAGE" EINTR $([[ $STEP == 0[56] ]] || echo EAGAIN)
  [[ $STEP == 0[56] ]] || return 0
  for call in recvfrom sendto; do # there, it goes on at the next event
    RUN=$(injecting "$call" error=EAGAIN:when=1) start "$STAGE"
    connect 'POST / HTTP/1.0\n\n'
    wait_until has_arrived
    wait_until is_quiet
    printf 'x' >&"$client"
    gives hello receive
    disconnect "$client"
  done
}

@test "$STAGE: its limit of descriptors is as high as its table and the hard limit allow" {
  local size=65536
  RUN="strace -D -o ${log@Q} -e trace=pselect6,?select" start "$STAGE"
  answers
  # FD_SETSIZE; a learner's that has poll() may have more.
  if [[ $STAGE == 03_* ]] && { grep -q select "$log" ||
    [ "$(prlimit --raw --noheadings -n -o SOFT -p "$pid")" = 1024 ]; }; then
    size=1024
  fi
  limits_descriptors "$STAGE" "$size"
}

@test "$STAGE: out of descriptors, it serves the clients it has, then those who wait" {
  start_crowded "$STAGE"
  # The first one never lets the server rest.
  client=${clients[0]}
  printf 'POST / HTTP/1.0\n\n' >&"$client"
  in_background cat /dev/zero 1>&"$client" 2>/dev/null
  echo 'one client sends all the time; the others leave when served, and let others in:'
  for client in "${clients[@]:1}"; do
    printf 'GET / HTTP/1.0\n\n' >&"$client"
    gives hello receive
    disconnect "$client"
  done
  answers
  kill "$started" 2>/dev/null || true
  same "$(sed s/accept4/accept/ "$err")" "$STAGE: accept: Too many open files"
}

@test "$STAGE: when accept fails while a client sends all the time, it tries again" {
  local number=2
  [[ $STEP != 0[56] ]] || number=3 # the second has said EAGAIN
  RUN=$(injecting accept,accept4 error=ENFILE:when="$number") start "$STAGE"
  connect 'POST / HTTP/1.0\n\n'
  PATIENCE=3 wait_until has_response
  talker=$client
  connect 'GET / HTTP/1.0\n\n'
  wait_until has_arrived
  for _ in {1..25}; do # more than a second, and more than a turn after it
    printf x >&"$talker"
    wait_read "$talker"
    nap 0.1
    ! has_response || break
  done
  echo 'seen: a client waits, though there is room, as long as another one sends'
  has_response
}

@test "$STAGE: out of descriptors, it does not spin" {
  RUN="strace -f -D -o ${log@Q} -e trace=/accept,/nanosleep" \
    start_crowded "$STAGE"
  # It is tried again a second later; and strace stops it at each call.
  tries=40 rests
  for client in "${clients[@]}"; do
    disconnect "$client"
  done
  wait_until has_descriptors "$without_clients"
  connect_many 20 # a second time
  wait_until has_descriptors 16
  tries=40 rests
  end_trace >/dev/null
  echo 'seen: the server sleeps, and serves nobody, where it should wait for events'
  awk '/accept/ { accepts[$1] } /nanosleep/ { sleeps[$1] }
    END { for (one in sleeps) if (one in accepts) exit 1 }' "$log" # another thread may sleep
}

@test "$STAGE: if it cannot wait for a client's socket, it closes only that client" {
  local call=epoll_ctl
  [[ $STAGE != 03_* ]] || call=fcntl # made non-blocking
  closes_only "$STAGE" "$call" 1 'GET / HT'
  case $STEP in
  04)
    closes_only "$STAGE" epoll_ctl 2 $'GET /closed HTTP/1.0\n\n' "$(hello)"
    closes_only "$STAGE" epoll_ctl 3 $'POST / HTTP/1.0\n\n' "$(hello)"
    ;;
  0[56]) # more than a turn reads
    closes_only "$STAGE" epoll_ctl 2 "$(printf 'POST / HTTP/1.0\n\n%030000d' 1)" \
      "$(hello)"
    ;;
  esac
}

@test "$STAGE: its sockets are non-blocking: each has O_NONBLOCK" {
  RUN="strace -D -o ${log@Q} -e trace=recvfrom,recvmsg,readv,sendto,sendmsg,writev" start "$STAGE"
  answers
  client_in_mid_request
  # MSG_DONTWAIT in each call does the same for a connection.
  without=0
  ! grep -q MSG_DONTWAIT "$log" || grep '^[rsw]' "$log" | grep -qv MSG_DONTWAIT || without=1
  echo 'sockets without O_NONBLOCK (04000):'
  found=$(find "/proc/$pid/fd" -lname 'socket:*' | sed 's,/fd/,/fdinfo/,' |
    xargs grep -L '^flags:.*[4-7]...$' | wc -l)
  ((found <= without)) || same "$found" "$without" # it may have both
}
