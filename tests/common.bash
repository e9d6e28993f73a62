# What the suites share: starting and ending servers, talking to them, looking
# at them from outside. Sourced by every suite with `load common`.
#
# The programs are taken from $PROGRAMS, a folder laid out like the project's
# own, which is also the default, and always taken where a test is about what
# the compiler was told. $RUN, if set, is put before each of them.

bats_require_minimum_version 1.5.0

PROJECT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
PROGRAMS=${PROGRAMS:-$PROJECT}
DEADLINE=${DEADLINE:-10} # seconds until a wait is given up

# Runs a command until it succeeds, and fails when $DEADLINE has passed.
wait_until() {
  local end=$((SECONDS + DEADLINE))
  until "$@"; do
    if ((SECONDS >= end)); then
      echo "gave up waiting until: $*"
      return 1
    fi
    sleep 0.02
  done
}

# Fails, with the text, where two texts differ.
same() { # actual expected
  [ "$1" = "$2" ] || {
    printf 'got:\n%s\nexpected:\n%s\n' "$(cat -v <<<"$1")" "$(cat -v <<<"$2")"
    return 1
  }
}

# --- Servers ---------------------------------------------------------------

# Prints where the program NAME stands.
program() { # name
  case $1 in
  upper_*) echo "$PROGRAMS/04_epoll_lt/$1" ;;
  *) echo "$PROGRAMS/$1/$1" ;;
  esac
}

# Starts a program on a port that the kernel chooses, and waits until it
# listens. Sets $pid, $port, $url; its output goes to $out and $err.
start() { # name [option...]
  local name=$1
  shift
  start_program "$(program "$name")" "$@" 0
}

start_program() { # path argument...
  local here
  here=$(mktemp -d "$BATS_TEST_TMPDIR/server.XXXXXX")
  out=$here/out
  err=$here/err
  : >"$out"
  # shellcheck disable=SC2086 # $RUN is a command with its options
  ${RUN-} "$@" >>"$out" 2>"$err" </dev/null 3>&- &
  pid=$!
  echo "$pid" >>"$BATS_TEST_TMPDIR/pids"
  wait_for_port
}

# Waits for the line `listening on …` in $out. Sets $port and $url.
wait_for_port() {
  wait_until listens
  if ! alive; then
    echo 'the server has ended, and said:'
    cat "$out" "$err"
    return 1
  fi
  port=$(sed -n '1s,/$,,; 1s/.*://p' "$out")
  url=http://127.0.0.1:$port/
}

listens() {
  grep -q '^listening on ' "$out" || ! alive
}

alive() { # [pid]
  [ -e "/proc/${1:-$pid}" ] && ! grep -q '^State:.Z' "/proc/${1:-$pid}/status"
}

ended() { # [pid]
  ! alive "${1:-$pid}"
}

# Waits until the server has ended, and fails where its exit code is another.
ends_with() { # code
  local code=0
  wait_until ended
  wait "$pid" || code=$?
  [ "$code" -eq "$1" ] || {
    echo "exit code $code, not $1; on stderr:"
    cat "$err"
    return 1
  }
}

# Ends every program that the test has started.
teardown() {
  local one
  if [ -e "$BATS_TEST_TMPDIR/pids" ]; then
    while read -r one; do
      { kill -KILL "$one" && wait "$one"; } 2>/dev/null || true
    done <"$BATS_TEST_TMPDIR/pids"
  fi
}

# Builds a stage anew, in a folder of its own, and prints the program's path.
build() { # name make-argument...
  local name=$1 folder
  shift
  folder=$(mktemp -d "$BATS_TEST_TMPDIR/build.XXXXXX")/$name
  mkdir "$folder"
  cp "$PROJECT/$name"/*.c "$PROJECT/$name/Makefile" "$folder"
  make -s -C "$folder" "$@" >&2
  echo "$folder/$name"
}

# --- Clients ---------------------------------------------------------------

# Prints what a stage answers to a GET.
hello() { # [name]
  local version=1.0
  [ "${1-$STAGE}" = 06_tcp_options ] && version=1.1
  printf 'HTTP/%s 200 OK\r\n' "$version"
  printf 'Date: Mon, 1 Jan 1996 01:01:01 GMT\r\n'
  printf 'Content-Type: text/plain\r\n'
  printf 'Content-Length: 13\r\n\r\nHello, world!'
}

too_large() {
  printf 'HTTP/1.0 431 Request Header Fields Too Large\r\n'
  printf 'Content-Length: 0\r\n\r\n'
}

# Sends its input to the server, half-closes, and prints what comes back.
ask() {
  timeout "$DEADLINE" nc -N 127.0.0.1 "$port"
}

# Prints the response to what printf makes of its arguments.
ask_for() { # format [argument...]
  # shellcheck disable=SC2059 # the format is the request
  printf "$@" | ask
}

# Opens a connection that stays open, on descriptor $client.
# shellcheck disable=SC2034 # $client is for the suites
connect() {
  exec {client}<>"/dev/tcp/127.0.0.1/$port"
}

# Starts a program that may open 16 descriptors, and connects 20 clients, in
# $crowd: the last ones wait in the backlog.
start_crowded() { # name
  RUN='prlimit --nofile=16 --' start "$1"
  crowd=()
  while ((${#crowd[@]} < 20)); do
    connect
    crowd+=("$client")
  done
  wait_until grep -q 'Too many open files' "$err"
}

disconnect() { # descriptor
  eval "exec $1>&-"
}

# Fails unless the server answers a fresh curl.
answers() {
  local body
  body=$(curl -sS --max-time "$DEADLINE" "$url")
  same "$body" 'Hello, world!'
}

# --- The kernel's side -----------------------------------------------------

# Prints how many descriptors the server has open.
descriptors() {
  find "/proc/$pid/fd" -mindepth 1 | wc -l
}

has_descriptors() { # number
  [ "$(descriptors)" -eq "$1" ]
}

# Prints how much CPU time the server has used, in clock ticks (of 10 ms).
ticks() {
  local stat
  stat=$(<"/proc/$pid/stat")
  # shellcheck disable=SC2086 # split into fields
  set -- ${stat##*) }
  echo $((${12} + ${13}))
}

# Fails where the server uses CPU time while nothing happens, for a second.
rests() {
  local before after
  before=$(ticks)
  sleep 1
  after=$(ticks)
  ((after - before <= 5)) || {
    echo "used $((after - before)) ticks in a second of doing nothing"
    return 1
  }
}

# Prints the server's sockets in a state, a line each.
sockets() { # state
  ss -Htn state "$1" "sport = :$port"
}

# True when the server has accepted all clients and read all that they sent.
has_read_all() {
  ss -Htan "sport = :$port" | awk '$2 != 0 { exit 1 }'
}

has_sockets() { # state number
  [ "$(sockets "$1" | wc -l)" -eq "$2" ]
}

# Fails unless valgrind has found nothing to complain of.
finds_nothing() { # log
  cat "$1"
  grep 'All heap blocks were freed' "$1"
  grep 'ERROR SUMMARY: 0 errors' "$1"
  # What is still open is what bats had opened before.
  same "$(grep -c '== Open ' "$1")" "$(grep -c '<inherited from parent>' "$1")"
}

# --- Traces ----------------------------------------------------------------

# Runs a stage under strace while ten GETs are served. Sets $log.
trace_gets() { # name
  log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log" PROGRAMS=$PROJECT start "$1"
  local i
  for ((i = 0; i < 10; i++)); do
    curl -sS "$url"
  done
  end_trace
}

# Ends the traced server, and waits until its trace is complete.
end_trace() {
  kill -TERM "$pid"
  ends_with 0
  wait_until grep -q 'exited with 0' "$log"
  cat "$log"
}

# Prints the calls made for ten GETs, with their number: those between the
# first and the last wait, but for the waits and the writing to the console.
calls_of_gets() {
  sed -n '/^epoll_pwait/,/^--- SIGTERM/p' "$log" |
    grep -vE '^(epoll_pwait|write|rt_sigprocmask|brk|---)' |
    sed 's/(.*//' | sort | uniq -c | awk '{ print $2, $1 }'
}

# Runs a stage under strace while a request of a little over 4 KB is served
# that was there at once. Sets $log.
trace_long_request() { # name
  log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log" PROGRAMS=$PROJECT start "$1"
  connect
  wait_until has_read_all
  wait_until grep -q '^epoll_ctl(.*EPOLL_CTL_ADD' "$log"
  kill -STOP "$pid"
  printf 'GET /%04090d HTTP/1.0\n\n' 1 >&"$client"
  kill -CONT "$pid"
  same "$(cat <&"$client")" "$(hello "$1")"
  end_trace
}
