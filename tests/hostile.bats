#!/usr/bin/env bats
# Clients that mean no good, against the stages from 02 on. The stage is named
# by $STAGE; `upper` is the upper-case server. What a stage's own suite does to
# it is not done again here.

load common

RESET=$(tool reset)

# Starts the server, and notes what it has open.
begin() {
  start "$NAME" ${mode:+"$mode"}
  before=$(descriptors)
}

# Does something to the server; to 06 in each of its modes.
in_each_mode() { # command...
  local mode=
  "$@"
  [ "$NAME" = 06_tcp_options ] || return 0
  for mode in --cork --nodelay; do
    echo "$mode:"
    end_by TERM
    "$@"
  done
}

# Fails unless the server is as it was, rests, and answers.
is_unharmed() {
  wait_until has_descriptors "$before"
  is_served
  rests
  same "$(<"$err")" ''
}

# Fails unless a fresh client is served.
is_served() {
  answers
}

# Sends its input, reads so many bytes, and resets the connection; often.
resets() { # bytes [times [half]]
  timeout "$DEADLINE" "$RESET" "$port" "$1" "${2-20}" ${3+"$3"}
}

only() { # program...
  [[ " $* " == *" $NAME "* ]] || skip "is about $*"
}

serves_many() {
  [ "$NAME" != 02_blocking_loop ] || skip 'serves one client after another'
}

# Fails unless the server shrugs off resets at a point that it comes to itself.
shrugs_off() { # bytes format [argument...]
  in_each_mode is_unharmed_by_resets "$@"
}

is_unharmed_by_resets() { # bytes format [argument...]
  local bytes=$1 request=$BATS_TEST_TMPDIR/request
  shift
  # shellcheck disable=SC2059 # the format is the request
  printf "$@" >"$request"
  begin
  resets "$bytes" <"$request"
  is_served
  # All at once, and over before the server looks.
  kill -STOP "$pid"
  resets 0 <"$request"
  kill -CONT "$pid"
  is_unharmed
}

@test "$NAME: a reset before the first byte ends nobody else" {
  shrugs_off 0 ''
}

@test "$NAME: a reset in mid-request ends nobody else" {
  shrugs_off 0 'GET / HT'
}

@test "$NAME: a reset behind the request ends nobody else" {
  shrugs_off 0 'GET / HTTP/1.1\r\n\r\n'
}

@test "$NAME: a reset in mid-response ends nobody else" {
  shrugs_off 1 'GET / HTTP/1.1\r\n\r\n'
}

@test "$NAME: a reset behind the response ends nobody else" {
  shrugs_off 5 'POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n'
  end_by TERM
  [ "$NAME" = upper_server ] || shrugs_off 200 'POST / HTTP/1.1\r\n\r\n'
}

@test "$NAME: a reset in mid-body ends nobody else" {
  shrugs_off 5 'POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc'
}

@test "$NAME: a reset behind many pipelined requests ends nobody else" {
  local one='GET / HTTP/1.1\r\n\r\n' many=
  for _ in {1..200}; do
    many+=$one
  done
  shrugs_off 1 "$many"
}

@test "$NAME: a reset behind a half-close ends nobody else" {
  in_each_mode shrugs_off_half
}

shrugs_off_half() {
  begin
  printf 'GET / HTTP/1.1\r\n\r\n' >"$BATS_TEST_TMPDIR/request"
  # Here, writing is not only an error, but worth a SIGPIPE.
  kill -STOP "$pid"
  resets 0 20 half <"$BATS_TEST_TMPDIR/request"
  kill -CONT "$pid"
  is_unharmed
}

@test "$NAME: a reset while others are served ends none of them" {
  serves_many
  in_each_mode shrugs_off_meanwhile
}

shrugs_off_meanwhile() {
  begin
  printf 'POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n' \
    >"$BATS_TEST_TMPDIR/request"
  timeout 20 "$RESET" "$port" 5 2000 \
    <"$BATS_TEST_TMPDIR/request" 3>&- &
  local resetting=$!
  echo "$resetting" >>"$BATS_TEST_TMPDIR/pids"
  while alive "$resetting"; do
    is_served
  done
  wait "$resetting"
  is_unharmed
}

@test "$NAME: a request that breaks off at any of its bytes leaves nothing" {
  local request=$'GET / HTTP/1.0\r\nA: b\r\n\r\n' cut
  begin
  for ((cut = 0; cut <= ${#request}; cut++)); do
    printf '%s' "${request:0:cut}" >"$BATS_TEST_TMPDIR/cut"
    resets 0 1 <"$BATS_TEST_TMPDIR/cut"
    connect
    cat "$BATS_TEST_TMPDIR/cut" >&"$client"
    disconnect "$client"
    # By half a connection, too.
    ask <"$BATS_TEST_TMPDIR/cut" >/dev/null
  done
  is_unharmed
}

@test "$NAME: NULs, escape sequences and all other bytes do no harm" {
  begin
  local byte
  for byte in {0..255}; do
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf %03o "$byte")" >>"$BATS_TEST_TMPDIR/bytes"
  done
  for _ in {1..20}; do
    cat "$BATS_TEST_TMPDIR/bytes"
  done >"$BATS_TEST_TMPDIR/all"
  {
    cat "$BATS_TEST_TMPDIR/all"
    printf '\0\n\n'
  } | ask >"$BATS_TEST_TMPDIR/answer"
  [ -s "$BATS_TEST_TMPDIR/answer" ]
  head -c 5000 /dev/zero | ask >/dev/null
  is_unharmed
  # Nothing but tabs, newlines and what can be printed has got through.
  same "$(LC_ALL=C tr -d '\t\n -~' <"$out" | wc -c)" 0
}

@test "$NAME: a head without an end costs no more memory than it may have" {
  serves_many
  begin
  local first i
  head -c 100000 /dev/zero | tr '\0' a >"$BATS_TEST_TMPDIR/endless"
  first=$(resident)
  for ((i = 0; i < 20; i++)); do
    connect
    cat "$BATS_TEST_TMPDIR/endless" >&"$client" || true
  done 2>/dev/null
  is_served
  echo "resident: $first KB, then $(resident) KB"
  (($(resident) - first < 1000))
}

# bats test_tags=whole
@test "$NAME: one that pipelines and never reads costs nobody else anything" {
  serves_many
  in_each_mode bears_one_who_never_reads
}

bears_one_who_never_reads() {
  begin
  local first
  for _ in {1..1000}; do
    printf 'GET / HTTP/1.1\r\nA: b\r\n\r\n'
  done >"$BATS_TEST_TMPDIR/requests"
  first=$(resident)
  connect
  for _ in {1..400}; do
    cat "$BATS_TEST_TMPDIR/requests" >&"$client" || break
  done 3>&- 2>/dev/null &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  wait_until has_begun
  wait_until has_done_its_part
  is_served
  tries=20 rests # the kernel may find room for a little more
  echo "resident: $first KB, then $(resident) KB"
  (($(resident) - first < 1000))
}

# True when the server sleeps, and leaves bytes unread or has ended the connection.
has_done_its_part() {
  is_quiet && [[ -z $(sockets established) ||
    $'\n'$(sockets established) == *$'\n'[1-9]* ]]
}

# True when the server has heard something from a client.
has_begun() {
  (($(wc -l <"$out") > 1))
}

# bats test_tags=whole
@test "$NAME: those that never stop sending do not keep another one waiting" {
  serves_many
  in_each_mode bears_those_who_never_stop
}

# Sends what a command prints, as long as it prints.
sends_all_of() { # command...
  exec timeout 60 nc 127.0.0.1 "$port" >/dev/null 2>&1 3>&- \
    < <(exec timeout 60 "$@" 2>/dev/null 3>&-)
}

bears_those_who_never_stop() {
  local senders=() sender
  # With a recv() this slow, there is always more to read.
  RUN='strace -D -o /dev/null -e trace=recvfrom
    -e inject=recvfrom:delay_exit=200' begin
  printf 'POST / HTTP/1.1\r\n\r\n' >"$BATS_TEST_TMPDIR/post"
  sends_all_of cat "$BATS_TEST_TMPDIR/post" /dev/zero &
  senders=($!)
  sends_all_of cat "$BATS_TEST_TMPDIR/post" /dev/zero &
  senders+=($!)
  sends_all_of yes $'GET / HTTP/1.1\r\n\r' &
  senders+=($!)
  printf '%s\n' "${senders[@]}" >>"$BATS_TEST_TMPDIR/pids"
  wait_until has_descriptors $((before + 3))
  for _ in {1..5}; do
    is_served
  done
  for sender in "${senders[@]}"; do
    kill -TERM "$sender" 2>/dev/null || true
  done
  PATIENCE=3 is_unharmed
}

trickle() {
  for _ in {1..300}; do
    for client in "${clients[@]}"; do
      printf 'x' >&"$client"
    done
    nap 0.01
  done
}

@test "$NAME: those that trickle do not keep a quick client waiting" {
  serves_many
  begin
  local clients
  connect_many 50
  in_background trickle 2>/dev/null
  local began
  began=$(microseconds)
  for _ in {1..10}; do
    is_served
  done
  echo "ten took $(($(microseconds) - began)) microseconds"
  (($(microseconds) - began < 20000000))
}

@test "$NAME: 10,000 silent clients do not keep another one waiting" {
  only 04_epoll_lt 05_epoll_et keep_alive 06_tcp_options upper_server
  local hard number=10000 end=$BATS_TEST_TMPDIR/end i
  hard=$(ulimit -Hn)
  if [ "$hard" != unlimited ] && ((hard < number + 100)); then
    number=$((hard - 100))
    echo "# $NAME: $number silent clients only: ulimit -Hn is $hard" >&3
  fi
  RUN="prlimit --nofile=$((number + 100)) --" begin
  mkfifo "$end"
  (
    ulimit -n $((number + 100))
    for ((i = 0; i < number; i++)); do
      connect
    done
    read -r <"$end"
  ) 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  PATIENCE=3 wait_until has_descriptors $((before + number))
  is_served
  rests
  echo >"$end"
  PATIENCE=3 is_unharmed
}

@test "$NAME: out of 32 descriptors, those who wait are served when some go" {
  serves_many
  RUN='prlimit --nofile=32 --' begin
  local inside=() waiting=()
  until says 'Too many open files'; do
    connect
    inside+=("$client")
    wait_until is_settled
  done
  tries=4 rests # each second
  # Nobody who waits makes the server try again and again.
  for _ in {1..5}; do
    (
      for client in "${inside[@]}"; do
        disconnect "$client"
      done
      is_served
    ) 3>&- &
    waiting+=($!)
  done
  wait_until has_waiting 5
  tries=4 rests
  for client in "${inside[@]:0:3}"; do
    disconnect "$client"
  done
  for client in "${waiting[@]}"; do
    wait "$client"
  done
  # And so on, for those who are inside still, and for new ones.
  for client in "${inside[@]:3}"; do
    printf 'GET / HTTP/1.0\n\n' >&"$client"
    IFS= read -r -N 5 -t "$DEADLINE" -u "$client" _
    disconnect "$client"
  done
  wait_until has_descriptors "$before"
  is_served
  same "$(wc -l <"$err")" 1
  [[ $(<"$err") == "$NAME: accept"*": Too many open files" ]]
}

# Starts the server, and connects more clients than it can take, in $inside
# and, the last ones, in $waiting.
begin_crowded() {
  local number=80
  if [ "$NAME" = 03_select ]; then # its table ends at FD_SETSIZE
    number=1100
    ulimit -n 1200
    begin
  else
    RUN='prlimit --nofile=64 --' begin
  fi
  inside=() waiting=()
  while ((${#inside[@]} < number)); do
    connect
    inside+=("$client")
  done
  wait_until grep -q . "$err"
  full=$(descriptors)
  waiting=("${inside[@]: -16}")
  inside=("${inside[@]:0:number-16}")
}

# Fails unless the clients are gone, and the server is as it was.
is_unharmed_by_crowd() {
  for client in "${inside[@]}" "${waiting[@]}"; do
    disconnect "$client"
  done
  wait_until has_descriptors "$before"
  is_served
  rests
  same "$(<"$err")" "$NAME: accept: Too many open files"
}

@test "$NAME: a reset while the table is full ends nobody else" {
  serves_many
  begin_crowded
  local post=$'POST / HTTP/1.0\r\n\r\n'
  printf '%s' "$post" | resets 0 20
  resets 0 20 </dev/null
  # Who closes with the response unread resets the connection.
  for client in "${inside[@]:10:5}"; do
    printf '%s' "$post" >&"$client"
    wait_response
    disconnect "$client"
  done
  inside=("${inside[@]:0:10}" "${inside[@]:15}")
  # Others are inside now.
  wait_until has_descriptors "$full"
  client=${inside[20]}
  printf '%s' "$post" >&"$client"
  wait_response
  is_unharmed_by_crowd
}

# bats test_tags=whole
@test "$NAME: no cork holds back the response that a turn ends with" {
  only 06_tcp_options
  local head=$'HTTP/1.1 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n' i
  head+=$'Content-Type: text/plain\r\nContent-Length: 13\r\n\r\n'
  # One recv(), fourteen send() and one more: MAX_STEPS.
  for i in {1..7}; do
    printf 'GET / HTTP/1.1\r\n\r\n'
  done >"$BATS_TEST_TMPDIR/requests"
  printf 'HEAD / HTTP/1.1\r\n\r\n' >>"$BATS_TEST_TMPDIR/requests"
  mode=--cork begin
  connect
  local began
  began=$(microseconds)
  for i in {1..10}; do
    cat "$BATS_TEST_TMPDIR/requests" >&"$client" # in one piece
    timeout "$DEADLINE" head -c $((8 * ${#head} + 7 * 13)) <&"$client"
  done
  # A cork lasts 200 ms, and then is no more.
  echo "ten took $(($(microseconds) - began)) microseconds"
  (($(microseconds) - began < 1000000))
}

# True when the backlog is empty, or the server has said that it has to wait.
is_settled() {
  has_waiting 0 || [ -s "$err" ]
}

# True when so many clients at least wait in the backlog; for 0, exactly.
has_waiting() { # number
  local waiting
  waiting=$(ss -Hltn "sport = :$port" | awk '{ print $2 }')
  ((waiting == $1 || ($1 > 0 && waiting >= $1)))
}
