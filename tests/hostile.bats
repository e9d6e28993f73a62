#!/usr/bin/env bats
# Clients that mean no good, against the stages from 02 on. The stage is named
# by $STAGE; `upper` is the upper-case server. What a stage's own suite does to
# it is not done again here.

load common

# What is done to 06, is done in each of its modes.
modes=('')
[ "$NAME" != 06_tcp_options ] || modes+=(--cork --nodelay)

# Starts the server, in a mode of 06 if $mode names one, after the one before.
begin() {
  [ -z "${pid-}" ] || end_by TERM
  echo "mode: ${mode:-none}"
  start "$NAME" ${mode:+"$mode"}
}

# Fails unless the server is as it was, rests, and answers.
is_unharmed() {
  answers
  wait_until has_descriptors "$without_clients"
  rests
  same "$(<"$err")" ''
}

serves_many() {
  [ "$NAME" != 02_blocking_loop ] || skip 'serves one client after another'
}

# Fails unless the server shrugs off resets at a point that it comes to itself, and
# such that are over before it looks, the half-closed ones too, where to write is
# worth a SIGPIPE.
is_unharmed_by_resets() { # bytes format
  local request=$BATS_TEST_TMPDIR/request
  echo "reset behind $1 bytes of the response to ${2:0:60}"
  printf '%b' "$2" >"$request"
  begin
  resets "$1" 20 <"$request"
  answers
  stop
  resets 0 20 <"$request"
  resets 0 20 half <"$request"
  kill -CONT "$pid"
  is_unharmed
}

@test "$NAME: a reset at any point ends no other client" {
  local get='GET / HTTP/1.1\r\n\r\n' many point
  local post='POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n'
  many=$(yes "$get" | head -n 200 | tr -d '\n')
  # How many bytes of the response are read before the reset, and what was sent.
  for point in '0 ' '0 GET / HT' "0 $get" "1 $get" "5 $post" "5 ${post}abc" \
    '200 POST / HTTP/1.1\r\n\r\n' "1 $many"; do
    [[ $NAME != upper_server || $point != 200* ]] || continue # says less
    for mode in "${modes[@]}"; do
      is_unharmed_by_resets "${point%% *}" "${point#* }"
    done
  done
}

@test "$NAME: a reset while others are served ends none of them" {
  serves_many
  printf 'POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n' >"$BATS_TEST_TMPDIR/request"
  for mode in "${modes[@]}"; do
    begin
    in_background timeout 200 "$PROJECT/tests/reset" "$port" 5 2000 <"$BATS_TEST_TMPDIR/request"
    while alive "$started"; do
      answers
    done
    wait "$started"
    is_unharmed
  done
}

@test "$NAME: a request cut off at any of its bytes leaves nothing open" {
  local request=$'GET / HTTP/1.0\r\nA: b\r\n\r\n' cut
  begin
  for ((cut = 0; cut <= ${#request}; cut++)); do
    printf '%s' "${request:0:cut}" >"$BATS_TEST_TMPDIR/cut"
    resets 0 1 <"$BATS_TEST_TMPDIR/cut"
    connect '%s' "${request:0:cut}"
    disconnect "$client"
    # By half a connection, too.
    ask <"$BATS_TEST_TMPDIR/cut" >/dev/null
  done
  is_unharmed
}

# bats test_tags=whole
@test "$NAME: a client that pipelines and never reads harms no other" {
  serves_many
  local first
  yes $'GET / HTTP/1.1\r\n\r' | head -c 10000000 >"$BATS_TEST_TMPDIR/requests"
  for mode in "${modes[@]}"; do
    begin
    first=$(resident)
    connect
    in_background cat "$BATS_TEST_TMPDIR/requests" 1>&"$client" 2>/dev/null
    wait_until has_response # so it has begun
    # It leaves unread what the client sends, or has ended the connection.
    wait_until eval 'is_not_read || { ended "$started" && is_quiet; }'
    answers
    tries=20 rests # the kernel may find room for a little more
    echo "resident: $first KB, then $(resident) KB"
    (($(resident) - first < 1000))
  done
}

# bats test_tags=whole
@test "$NAME: clients that never stop sending do not keep another waiting" {
  serves_many
  local post=$BATS_TEST_TMPDIR/post senders
  printf 'POST / HTTP/1.1\r\n\r\n' >"$post"
  for mode in "${modes[@]}"; do
    senders=()
    # With a recv() this slow, there is always more to read.
    RUN=$(injecting recvfrom delay_exit=200) begin
    sends_all_of cat "$post" /dev/zero
    sends_all_of cat "$post" /dev/zero
    sends_all_of yes $'GET / HTTP/1.1\r\n\r'
    wait_until has_descriptors $((without_clients + 3))
    for _ in {1..5}; do
      answers
    done
    kill "${senders[@]}" 2>/dev/null || true
    PATIENCE=3 is_unharmed
  done
}

# Sends what a command prints, as long as it prints, and reads what comes back.
sends_all_of() { # command...
  connect
  in_background "$@" 1>&"$client" 2>/dev/null
  senders+=("$started")
  in_background cat <&"$client" >/dev/null 2>&1
  senders+=("$started")
  disconnect "$client"
}

@test "$NAME: 10,000 silent clients do not keep another one waiting" {
  [[ $NAME != 0[23]_* ]] || skip 'serves fewer'
  local number=10000
  if (($(ulimit -Hn) < number + 100)); then
    number=$(($(ulimit -Hn) - 100))
    echo "# $NAME: $number silent clients only: ulimit -Hn is $(ulimit -Hn)" >&3
  fi
  RUN="prlimit --nofile=$((number + 100)) --" begin
  in_background eval \
    'ulimit -n $((number + 100)); connect_many "$number"; exec sleep infinity'
  PATIENCE=3 wait_until has_descriptors $((without_clients + number))
  answers
  rests
  kill "$started"
  PATIENCE=3 is_unharmed
}

@test "$NAME: a reset while the table is full ends no other client" {
  serves_many
  local post=$'POST / HTTP/1.0\r\n\r\n' clients full
  RUN='prlimit --nofile=64 --' begin
  connect_many 80
  wait_until says 'Too many open files'
  full=$(descriptors)
  printf '%s' "$post" | resets 0 20
  resets 0 20 </dev/null
  # Who closes with the response unread resets the connection.
  for client in "${clients[@]:0:5}"; do
    printf '%s' "$post" >&"$client"
    wait_until has_response
    disconnect "$client"
  done
  wait_until has_descriptors "$full" # others are inside now
  client=${clients[62]} # who was outside
  printf '%s' "$post" >&"$client"
  wait_until has_response
  for client in "${clients[@]:5}"; do
    disconnect "$client"
  done
  answers
  wait_until has_descriptors "$without_clients"
  rests
  same "$(<"$err")" "$NAME: accept: Too many open files"
}
