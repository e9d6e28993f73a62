#!/usr/bin/env bats
# Clients that mean no good, against the stages from 02 on. The stage is named
# by $STAGE; `upper` is the upper-case server. What a stage's own suite does to
# it is not done again here.

load common

NAME=$STAGE
[ "$STAGE" = upper ] && NAME=upper_server

setup_file() {
  gcc -o "$BATS_FILE_TMPDIR/reset" "$BATS_TEST_DIRNAME/reset.c"
}

# Starts the server, and notes what it has open.
begin() {
  start "$NAME"
  before=$(descriptors)
}

# Fails unless the server is as it was, rests, and answers.
is_unharmed() {
  wait_until has_descriptors "$before"
  has_sockets established 0
  has_sockets close-wait 0
  is_served
  rests
  same "$(cat "$err")" ''
}

# Fails unless a fresh client is served.
is_served() {
  if [ "$NAME" = upper_server ]; then
    same "$(printf hello | ask)" HELLO
  else
    answers
  fi
}

# Sends its input, reads so many bytes, and resets the connection; often.
resets() { # bytes [times [half]]
  timeout "$DEADLINE" "$BATS_FILE_TMPDIR/reset" "$port" "$1" "${2-20}" ${3+"$3"}
}

only() { # program...
  [[ " $* " == *" $NAME "* ]] || skip "is about $*"
}

serves_many() {
  [ "$NAME" != 02_blocking_loop ] || skip 'serves one client after another'
}

# Fails unless the server shrugs off resets at a point that it comes to itself.
shrugs_off() { # bytes format [argument...]
  local bytes=$1 request=$BATS_TEST_TMPDIR/request
  shift
  # shellcheck disable=SC2059 # the format is the request
  printf "$@" >"$request"
  begin
  resets "$bytes" <"$request"
  is_unharmed
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
  kill -TERM "$pid"
  ends_with 0
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
  begin
  printf 'POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n' \
    >"$BATS_TEST_TMPDIR/request"
  timeout 20 "$BATS_FILE_TMPDIR/reset" "$port" 5 2000 \
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
  PROGRAMS=$PROJECT begin # ASan keeps what is freed
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

# Prints the server's resident memory in KB.
resident() {
  awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
}

# bats test_tags=whole
@test "$NAME: one that pipelines and never reads costs nobody else anything" {
  serves_many
  PROGRAMS=$PROJECT begin # ASan keeps what is freed
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
  wait_until is_quiet
  is_served
  rests
  echo "resident: $first KB, then $(resident) KB"
  (($(resident) - first < 1000))
}

# True when the server has heard something from a client.
has_begun() {
  (($(wc -l <"$out") > 1))
}

# True when the server has had nothing to do for a while.
is_quiet() {
  local ticks
  ticks=$(ticks)
  sleep 0.3
  [ "$(ticks)" -eq "$ticks" ]
}

@test "$NAME: those that trickle do not keep a quick client waiting" {
  serves_many
  begin
  local clients=() i
  for ((i = 0; i < 50; i++)); do
    connect
    clients+=("$client")
  done
  for _ in {1..300}; do
    for client in "${clients[@]}"; do
      printf 'x' >&"$client"
    done
    sleep 0.01
  done 2>/dev/null 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  local began=${EPOCHREALTIME/./}
  for _ in {1..10}; do
    is_served
  done
  echo "ten took $((${EPOCHREALTIME/./} - began)) microseconds"
  ((${EPOCHREALTIME/./} - began < 2000000))
}

@test "$NAME: 10,000 silent clients do not keep another one waiting" {
  only 04_epoll_lt 05_epoll_et 06_tcp_options upper_server
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
    set +T # bats watches each command, which takes its time
    trap - DEBUG
    for ((i = 0; i < number; i++)); do
      connect
    done
    read -r <"$end"
  ) 3>&- &
  echo $! >>"$BATS_TEST_TMPDIR/pids"
  DEADLINE=30 wait_until has_descriptors $((before + number))
  is_served
  rests
  echo >"$end"
  DEADLINE=30 is_unharmed
}

@test "$NAME: out of 32 descriptors, those who wait are served when some go" {
  serves_many
  RUN='prlimit --nofile=32 --' begin
  local inside=() waiting=()
  until grep -q 'Too many open files' "$err"; do
    connect
    inside+=("$client")
    wait_until is_settled
  done
  rests
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
  rests
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
  [[ $(cat "$err") == "$NAME: accept"*": Too many open files" ]]
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
