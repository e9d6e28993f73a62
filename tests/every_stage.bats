#!/usr/bin/env bats
# What every stage does, 01 to 06. The stage is named by $STAGE.

load common

@test "$STAGE: it takes a port and an address, and refuses what is invalid" {
  local option word options=''
  [ "$STAGE" != 06_tcp_options ] || options='[--cork | --nodelay] '
  for option in -h --help; do
    run --separate-stderr patiently "$(program "$STAGE")" "$option"
    same "$status" 0
    same "$output" "usage: $STAGE ${options}[port [address]]"
    same "$stderr" ''
  done
  for word in x 80x '' ' 80' +80 -1 65536 99999999999999999999 0x50 80.0; do
    refuses "$STAGE" "$word" "$word"
    [[ $stderr == *'(0 to 65535)'* ]]
  done
  for word in localhost 1.2.3 256.0.0.1 ::1 '' 127.0.0.1.5; do
    refuses "$STAGE" "$word" 65535 "$word" # the highest port
  done
  refuses "$STAGE" --port --port
  refuses "$STAGE" -p -p 8080
  refuses "$STAGE" more 8080 127.0.0.1 more
  [ -z "$options" ] || refuses "$STAGE" --nodelay --cork --nodelay
  [ -z "$options" ] || refuses "$STAGE" --cork 8080 --cork
  start_program "$(program "$STAGE")" 0 127.0.0.2
  [[ $(<"$out") =~ ^listening\ on\ http://127\.0\.0\.2:[1-9][0-9]*/$ ]]
  exec {client}<>"/dev/tcp/127.0.0.2/$port"
  printf 'GET / HTTP/1.0\n\n' >&"$client"
  gives hello receive
  # The call is made to fail, so that it does not matter who has the port.
  run patiently strace -o "$log" -e trace=bind -e inject=bind:error=EADDRINUSE \
    "$(program "$STAGE")"
  same "$status" 1
  grep -F 'sin_port=htons(8080), sin_addr=inet_addr("127.0.0.1")' "$log"
}

@test "$STAGE: if the port is in use, it says so and ends" {
  start "$STAGE"
  if start_program "$(program "$STAGE")" "$port" >/dev/null; then
    echo 'seen: two servers listen on one port'
    return 1
  fi
  ends_with 1
  same "$(<"$out")" ''
  same "$(<"$err")" "$STAGE: bind: Address already in use"
}

@test "$STAGE: if a call fails at the start, it says so and ends" {
  local call calls='socket setsockopt listen getsockname'
  RUN="strace -D -o ${log@Q} -e trace=fcntl,setsockopt,/^epoll_c" start "$STAGE"
  ! grep -q F_SETFL "$log" || calls+=' fcntl' # SOCK_NONBLOCK does the same
  for call in epoll_create1 epoll_create epoll_ctl; do # what it calls
    ! grep -q "^$call(" "$log" || calls+=" $call"
  done
  # The second option that it sets, and so on, if there is one.
  calls+=$(seq -f ' setsockopt:when=%g' 2 "$(grep -c ^setsockopt "$log")")
  for call in $calls; do
    name=${call%:*}
    RUN=$(injecting "$name" "error=ENOBUFS${call#"$name"}") start "$STAGE" >/dev/null || true
    said=$(<"$err")
    # Without a second option, it may go on.
    [[ $call != *:* ]] || ended || continue
    # It may say more.
    same "$name fails: ${said/: *: /: }" "$name fails: $STAGE: No buffer space available"
    [[ $call != @(socket|listen) ]] || same "$(<"$out")" ''
    ends_with 1
  done
  # So it is if it cannot say where it listens.
  run patiently sh -c 'exec "$0" 0 >/dev/full' "$(program "$STAGE")"
  same "with a full console: exit code $status, ${output/: *: /: }" \
    "with a full console: exit code 1, $STAGE: No space left on device"
  exec {gone}> >(:)
  wait_until ended $! # bash's wait may hang here, if it has noted the end already
  run patiently bash -c "exec \"\$0\" 0 >&$gone" "$(program "$STAGE")"
  same "when its console has gone: exit code $status, ${output/: *: /: }" \
    "when its console has gone: exit code 1, $STAGE: Broken pipe"
}

@test "$STAGE: a socket never takes the place of a closed stdin, stdout or stderr" {
  for closed in '<&-' '2>&-' '<&- 2>&-' '3</dev/null'; do # or another is open
    RUN="sh -c 'exec \"\$@\" $closed' -" start "$STAGE"
    client_in_mid_request
    [[ $(readlink "/proc/$pid/fd/"[012]) != *socket:* ]]
    printf 'TP/1.0\r\n\r\n' >&"$client"
    gives hello receive
    disconnect "$client"
    [[ $STAGE == 01_* ]] || answers
  done
  # It cannot say where it listens.
  for closed in '>&-' '<&- >&-' '>&- 2>&-' '<&- >&- 2>&-'; do
    run patiently sh -c "exec \"\$@\" $closed" - "$(program "$STAGE")" 0
    same "$status" 1
    [[ $closed == *2* ]] || same "${output/: *: /: }" "$STAGE: Bad file descriptor"
  done
}

@test "$STAGE: curl gets the tutorial's response, byte for byte" {
  have_server
  gives hello patiently curl -sS -i -0 "$url"
}

@test "$STAGE: either kind of blank line ends a request, and nothing else does" {
  for request in 'GET / HTTP/1.0\n\n' 'GET / HTTP/1.0\r\n\r\n' \
    'GET / HTTP/1.0\nA: b\n\n' 'GET / HTTP/1.0\r\nA: b\n\r\n' \
    'GET / HTTP/1.0\r\nA: b\r\n\r\n' '\n\n' '\n\r\n'; do
    # Where a request can come behind another, empty lines are none.
    [[ $STEP != 06 || $request != '\n'* ]] || continue
    have_server
    connect "$request"
    gives hello receive
    disconnect "$client"
  done
  for request in '\r\n' 'GET / HTTP/1.0\r\n' 'GET / HTTP/1.0\n\r\r\n' \
    'GET / HTTP/1.0\n\rA\n' 'GET / HTTP/1.0\r\r\nA: b\n'; do
    have_server
    gives true ask_for "$request"
  done
  have_server
  shown=$(grep -c '^-' "$out") || true
  gives too_large ask < <(head -c 100000 /dev/zero | tr '\0' a)
  wait_until eval 'sleeps || ended'
  same "$(grep -c '^-' "$out")" "$shown" # it is not shown
}

@test "$STAGE: a request may arrive a byte at a time" {
  local request=$'GET / HTTP/1.0\r\nHost: a\r\n\r\n' i
  have_server
  connect
  for ((i = 0; i < ${#request}; i++)); do
    printf '%s' "${request:i:1}" >&"$client"
    wait_read
  done
  gives hello receive
}

# Sends a file in two pieces: the first has been read before the second comes.
send_cut() { # file where
  connect
  if (($2 > 0)); then
    head -c "$2" "$1" >&"$client"
    wait_read
  fi
  dd status=none bs=64k iflag=skip_bytes skip="$2" if="$1" >&"$client"
}

@test "$STAGE: a request may be cut in two anywhere" {
  local request=$BATS_TEST_TMPDIR/request cut
  printf 'GET / HTTP/1.0\r\nA: b\r\n\r\n' >"$request"
  for ((cut = 14; cut < 24; cut++)); do
    have_server
    send_cut "$request" "$cut"
    gives hello receive
    disconnect "$client"
  done
}

@test "$STAGE: a request of 8192 bytes is served, a longer one gets 431" {
  local request=$BATS_TEST_TMPDIR/request size cut answer
  for size in 8192 8193 9000; do
    answer=hello
    ((size == 8192)) || answer=too_large
    # 23 bytes of it are not filler.
    printf 'GET / HTTP/1.0\r\nA: %0*d\r\n\r\n' $((size - 23)) 1 >"$request"
    for cut in 0 16 1023 1025 8191; do
      have_server
      send_cut "$request" "$cut"
      gives "$answer" receive
      disconnect "$client"
    done
  done
}

# bats test_tags=whole
@test "$STAGE: a client that posts 10 MB gets its whole response" {
  have_server
  gives hello ask < <(
    printf 'POST / HTTP/1.0\r\nContent-Length: 10000000\r\n\r\n'
    head -c 10000000 /dev/zero
  )
}

@test "$STAGE: if send() takes only a part, the rest follows" {
  RUN=$(preload fault FAULT_SIZE=few) start "$STAGE"
  connect 'POST / HTTP/1.0\r\n\r\n'
  gives hello receive
  tries=4 rests # though TCP may wake it when the client's kernel acknowledges the end
}

# Fails unless 01_blocking, which serves one client, ends with 0, and says nothing of
# it; or another stage does this.
ends_or() { # command...
  [[ $STAGE == 01_* ]] || { "$@"; return; }
  ends_with 0
  same "$(<"$err")" ''
}

@test "$STAGE: after a GET or HEAD in HTTP/1.0, it closes without waiting for the client" {
  local method answer
  for method in GET HEAD; do
    answer=hello
    [[ $STEP != 06 || $method == GET ]] || answer='hello | head -c -13'
    have_server
    connect '%s / HTTP/1.0\r\n\r\n' "$method"
    gives "$answer" receive
    ends_or wait_until has_descriptors "$without_clients"
    disconnect "$client"
  done
}

# Fails unless a client that still sends when it has read the response to its
# end is not reset, nor kept when it has closed.
ends_orderly() { # request-format...
  local format
  for format in "$@"; do
    have_server
    printf "$format" >"$BATS_TEST_TMPDIR/sent"
    send_cut "$BATS_TEST_TMPDIR/sent" "${cut-0}"
    gives "${answer-hello}" receive
    for go_on in wait_read wait_read true; do # a reset would fail the next one
      (printf 'x' >&"$client") || {
        echo 'seen: the connection was reset'
        return 1
      }
      "$go_on"
    done
    disconnect "$client"
    ends_or wait_until has_descriptors "$without_clients"
  done
}

@test "$STAGE: a client that still sends gets the whole response, and no reset" {
  ends_orderly 'POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n' \
    'POST / HTTP/1.0\n\n' 'GETX / HTTP/1.0\r\n\r\n' 'get / HTTP/1.0\r\n\r\n' \
    'HEADX / HTTP/1.0\r\n\r\n'
  answer=too_large ends_orderly "GET /$(printf '%08200d' 1)"
  local answer=hello
  [[ $STEP != 06 ]] || answer='hello | head -c -13'
  ends_orderly 'HEAD / HTTP/1.0\r\nContent-Length: 24\r\n\r\n' \
    'HEAD / HTTP/1.0\nTransfer-Encoding: chunked\n\n'
}

# bats test_tags=whole
@test "$STAGE: a client that sends more after a request of 1024, 2048 or 8192 bytes gets no reset" {
  # 1024 bytes are read at once, and what is behind them is not among them.
  ends_orderly "GET /$(printf '%01008d' 1) HTTP/1.0\n\n$(printf '%0100d' 1)" \
    "GET /$(printf '%02032d' 1) HTTP/1.0\n\n$(printf '%05000d' 1)" \
    "GET /$(printf '%08176d' 1) HTTP/1.0\n\n$(printf '%05000d' 1)"
  # The last piece that has room is not a full one.
  cut=100 ends_orderly "GET /$(printf '%08176d' 1) HTTP/1.0\n\n$(printf '%05000d' 1)"
}

# bats test_tags=whole
@test "$STAGE: a client that sends more after its request gets no reset" {
  ends_orderly 'GET / HTTP/1.0\r\n\r\nx' \
    "GET / HTTP/1.0\r\n\r\n$(printf '%0500d' 1)"
}

@test "$STAGE: a client whose GET announces a body, or has a NUL byte, gets no reset" {
  ends_orderly 'GET / HTTP/1.0\r\ncontent-length: 2\r\n\r\n' \
    'GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n' \
    'GET / HTTP/1.0\nA: b\nCONTENT-LENGTH:2\n\n' \
    'GET /\0 HTTP/1.0\r\n\r\n' '\0GET / HTTP/1.0\r\n\r\n' \
    'GET / HTTP/1.0\r\nA: b\0\0\r\nContent-Length: 2\r\n\r\n'
}

# bats test_tags=whole
@test "$STAGE: the console shows the request, and no byte that a terminal would obey" {
  start "$STAGE"
  ask_for 'GET /\033[2J\tq HTTP/1.0\r\nA: \0\r\303\244\177\\\r\n\r\nbody' \
    >/dev/null
  shown=$(printf -- '-%.0s' {1..40})'
GET /\x1b[2J	q HTTP/1.0
A: \x00\xc3\xa4\x7f\

'
  [ "$STAGE" = 06_tcp_options ] &&
    shown+=$'closed after 1 responses in 2 data segments (plain)\n'
  wait_until console_shows "$shown"
  have_server
  awk 'BEGIN { for (i = 0; i < 256; i++) printf "%c", i; print "\n" }' >"$BATS_TEST_TMPDIR/all"
  ask <"$BATS_TEST_TMPDIR/all" >/dev/null
  wait_until grep -qa '}~' "$out" # perhaps after the response
  same "$(LC_ALL=C tr -d '\t\n -~' <"$out" | wc -c)" 0
}

# Waits for the console to show a text after its first line.
console_shows() { # text
  [ "$(tail -n +2 "$out" && echo .)" = "$1." ]
}

@test "$STAGE: it goes on when its console has gone" {
  start_on_pipe
  disconnect "$reader"
  answers
  case $STAGE in 01_*) ends_with 0 ;; *) answers ;; esac # it may say so on stderr
}

# Brings the server into one more state, with a client on $client.
client_that_still_sends() {
  connect 'POST / HTTP/1.0\nContent-Length: 9\n\n'
  gives hello receive
  printf 'abc' >&"$client"
  wait_read
}

@test "$STAGE: Ctrl-C and kill end it at once, in every state" {
  for signal in INT TERM; do
    for state in true silent_client client_in_mid_request \
      client_that_still_sends; do
      # What a shell's & starts would ignore SIGINT.
      RUN='env --default-signal=INT' start "$STAGE"
      "$state"
      end_by "$signal"
      same "$(<"$err")" ''
    done
  done
}

@test "$STAGE: signals ignored or blocked at its start stay that way" {
  for how in ignore block; do
    RUN="env --$how-signal=INT --$how-signal=TERM" start "$STAGE"
    kill -INT "$pid"
    kill -TERM "$pid"
    answers
  done
}

@test "$STAGE: it can be stopped and continued while it waits" {
  start "$STAGE"
  stop_and_continue
  client_in_mid_request
  stop_and_continue
  stop_and_continue
  printf 'TP/1.0\n\n' >&"$client"
  gives hello receive
  disconnect "$client"
  # What interrupted a call does not hide that a later client leaves.
  [[ $STAGE != 01_* ]] || start "$STAGE"
  client_in_mid_request
  stop_and_continue
  disconnect "$client"
  if [[ $STAGE == 01_* ]]; then ends_with 1; else wait_until has_descriptors "$without_clients"; fi
}

# bats test_tags=waits
@test "$STAGE: while nothing happens, it uses no CPU time" {
  local state servers=()
  for state in true silent_client client_in_mid_request \
    client_that_still_sends; do
    # Until 03, a client is alone.
    [ -n "${pid-}" ] && [[ $STEP != 0[12] ]] || start "$STAGE"
    "$state"
    servers+=("$pid")
  done
  look=1.1 rests "${servers[@]}" # nor does it wake once a second
}

@test "$STAGE: it can be started again on the same port at once" {
  wait_until keeps_time_wait || skip 'there is no room for sockets in TIME_WAIT'
  start "$STAGE"
  first=$port
  # The side that closes first is the one in TIME_WAIT.
  connect 'GET / HTTP/1.0\r\n\r\n'
  gives hello receive
  disconnect "$client"
  wait_until has_sockets time-wait 1
  kill -TERM "$pid" 2>/dev/null || true
  wait_until ended
  has_sockets time-wait 1
  start_program "$(program "$STAGE")" "$first"
  same "$port" "$first"
  answers
}

# bats test_tags=whole
@test "$STAGE: no request makes it read or write outside its buffer" {
  local program
  # (ASan of gcc 11 and 12 cannot run at every address that Linux may choose.)
  export RUN='env ASAN_OPTIONS=detect_leaks=0' # 01 may leave that to its end
  ! setarch -R true 2>/dev/null || RUN="setarch -R $RUN"
  program=$(build "$STAGE" CFLAGS='-g -fsanitize=address')
  for request in '\n' '\r\n' 'GET /\n\n' "GET /$(printf '\1%.0s' {1..8000})\n\n" "$(printf '%08193d' 1)" \
    "GET /$(printf '%01017d' 1)\n\n" "$(requests 20)"; do # the sixth is a chunk
    [[ -n ${pid-} && $STAGE != 01_* ]] || start_program "$program" 0
    ask_for "$request" >"$BATS_TEST_TMPDIR/response" || true # it may leave first
    [[ $STAGE != 01_* ]] || wait_until ended
    same "$(grep -A 5 Sanitizer "$err")" ''
  done
  # Cut where no chunk ends with the buffer.
  [[ $STAGE != 01_* ]] || start_program "$program" 0
  printf '%09000d' 1 >"$BATS_TEST_TMPDIR/request"
  send_cut "$BATS_TEST_TMPDIR/request" 15
  receive >"$BATS_TEST_TMPDIR/response" || true
  same "$(grep -A 5 Sanitizer "$err")" ''
}
