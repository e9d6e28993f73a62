# What the suites share: starting and ending servers, talking to them, looking
# at them from outside. Sourced by every suite with `load common`.
#
# The programs, and what is built anew from their sources, are taken from
# $PROGRAMS, a folder laid out like the project's own, which is the default.
# $RUN, if set, is put before each of them.

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

# Fails unless a command succeeds and prints, byte for byte, what another one
# prints. ($(...) would lose a NUL, and newlines at the end.)
gives() { # expecting-command command...
  local expected=$BATS_TEST_TMPDIR/expected got=$BATS_TEST_TMPDIR/got code=0
  eval "$1" >"$expected"
  shift
  "$@" >"$got" || code=$?
  if ((code != 0)) || ! cmp "$got" "$expected"; then
    case $code in
    124) echo "no end within $DEADLINE seconds of: $*" ;;
    *) echo "exit code $code of: $*" ;;
    esac
    echo 'which printed, at its end:'
    tail -c 1000 "$got" | cat -v
    return 1
  fi
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

# Sends a signal, and fails unless the server ends by it, as a program does
# that does nothing about it.
end_by() { # signal
  kill "-$1" "$pid"
  ends_with $((128 + $(kill -l "$1")))
}

# Has a server that takes clients: 01_blocking takes one in its life.
# shellcheck disable=SC2120 # without options
have_server() {
  if [ -z "${pid-}" ] || [ "$STAGE" = 01_blocking ]; then
    start "$STAGE"
  fi
}

teardown() {
  end_programs
}

# Ends every program that the test has started.
end_programs() {
  local one
  if [ -e "$BATS_TEST_TMPDIR/pids" ]; then
    while read -r one; do
      { kill -KILL "$one" && wait "$one"; } 2>/dev/null || true
    done <"$BATS_TEST_TMPDIR/pids"
  fi
}

# Builds a stage anew, in a folder of its own, and prints the program's path.
build() { # name make-argument...
  local name=$1 folder sources=$PROGRAMS/$1
  shift
  [ -e "$sources/server.c" ] || sources=$PROJECT/$name
  folder=$(mktemp -d "$BATS_TEST_TMPDIR/build.XXXXXX")/$name
  mkdir "$folder"
  cp "$sources"/*.c "$sources/Makefile" "$folder"
  make -s -C "$folder" "$@" >&2
  echo "$folder/$name"
}

# --- Clients ---------------------------------------------------------------

# Prints what a stage answers to a GET that ends the connection.
hello() { # [name]
  local version=1.0 last=
  if [ "${1-$STAGE}" = 06_tcp_options ]; then
    version=1.1 last=$'Connection: close\r\n'
  fi
  printf 'HTTP/%s 200 OK\r\n' "$version"
  printf 'Date: Mon, 1 Jan 1996 01:01:01 GMT\r\n'
  printf 'Content-Type: text/plain\r\n'
  printf 'Content-Length: 13\r\n%s\r\nHello, world!' "$last"
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

# Prints what the server says to the client on $client, until it says no more.
receive() {
  timeout "$DEADLINE" cat <&"$client"
}

# Prints so many bytes of it.
receive_bytes() { # number
  timeout "$DEADLINE" head -c "$1" <&"$client"
}

# Prints so many bytes of what it says to each of $clients, until one gets none.
receive_from_each() { # number
  for client in "${clients[@]}"; do
    receive_bytes "$1" || return
  done
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

# Fails unless the server answers a fresh client.
answers() {
  local body
  if [ "$STAGE" = upper ]; then
    same "$(printf hello | ask)" HELLO
    return
  fi
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

# Prints how much CPU time the server has used, in nanoseconds.
cpu_time() {
  local spent
  read -r spent _ <"/proc/$pid/schedstat"
  echo "$spent"
}

# The same in clock ticks (of 10 ms).
ticks() {
  local stat
  stat=$(<"/proc/$pid/stat")
  # shellcheck disable=SC2086 # split into fields
  set -- ${stat##*) }
  echo $((${12} + ${13}))
}

# Fails where the server uses CPU time while nothing happens. (It may have had
# something left to do in the first of three seconds.)
rests() {
  local before spent_ms
  for _ in {1..3}; do
    before=$(cpu_time)
    sleep 1
    spent_ms=$((($(cpu_time) - before) / 1000000))
    ((spent_ms > 20)) || return 0
  done
  echo "used $spent_ms ms in a second of doing nothing"
  return 1
}

# Prints the server's resident memory in KB.
resident() {
  awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
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

# True when a client's bytes wait, and the server has slept for a while.
is_not_read() {
  local spent
  spent=$(cpu_time)
  sleep 0.3
  grep -q '^State:.S' "/proc/$pid/status" && [ "$(cpu_time)" -eq "$spent" ] &&
    sockets established | grep -q '^[1-9]'
}

# --- What all servers promise ------------------------------------------------

# Starts a program whose accept() fails on its first call, and on every second
# one then. Fails unless that is said once, and those who wait are served.
survives_accept() { # name
  RUN='strace -D -o /dev/null -e trace=accept,accept4
    -e inject=accept,accept4:error=ENFILE:when=1+2' start "$1"
  answers
  answers
  answers
  same "$(cat "$err")" "$1: accept: Too many open files in system"
}

# Fails where a client is forgotten because accept() has said before it that
# nobody is there, or says anything.
accepts_behind() { # name
  local error
  for error in ECONNABORTED EINTR; do
    RUN="strace -D -o /dev/null -e trace=accept,accept4
      -e inject=accept,accept4:error=$error:when=1" start "$1"
    answers
    same "$(cat "$err")" ''
  done
}

# Starts a program, and fails unless it survives to answer clients that are gone.
answers_the_gone() { # name request
  local before
  gcc -o "$BATS_TEST_TMPDIR/reset" "$BATS_TEST_DIRNAME/reset.c"
  printf '%s' "$2" >"$BATS_TEST_TMPDIR/request"
  start "$1"
  before=$(descriptors)
  kill -STOP "$pid"
  # Half-closed and then reset: to write is worth a SIGPIPE.
  timeout "$DEADLINE" "$BATS_TEST_TMPDIR/reset" "$port" 0 5 half \
    <"$BATS_TEST_TMPDIR/request"
  kill -CONT "$pid"
  answers
  wait_until has_descriptors "$before"
}

# Starts a program and fails unless its limit of descriptors is the size of its
# table, or the hard limit where that is lower.
limits_descriptors() { # name table-size
  local number=$2 hard
  hard=$(ulimit -Hn)
  [ "$hard" = unlimited ] || ((hard >= number)) || number=$hard
  start "$1"
  same "$(soft_limit)" "$number"
  RUN='prlimit --nofile=64:200 --' start "$1"
  same "$(soft_limit)" 200
}

soft_limit() {
  awk '/^Max open files/ { print $4 }' "/proc/$pid/limits"
}

# Fails unless a client for whom a call fails is closed, and no other.
closes_only() { # name call occurrence request
  RUN="strace -D -o /dev/null -e trace=$2
    -e inject=$2:error=ENOMEM:when=$3" start "$1"
  local before
  before=$(descriptors)
  connect
  printf '%s' "$4" >&"$client"
  receive >"$BATS_TEST_TMPDIR/nothing" || true # an end, or a reset
  same "$(wc -c <"$BATS_TEST_TMPDIR/nothing")" 0
  wait_until has_descriptors "$before"
  disconnect "$client"
  answers
  same "$(cat "$err")" ''
}

# --- Traces ----------------------------------------------------------------

# shellcheck disable=SC2034 # for the suites
WAITS='pselect6,?epoll_wait,epoll_pwait' # which one, is up to the machine

# Runs a stage under strace while ten GETs are served. Sets $log.
trace_gets() { # name
  log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log" start "$1"
  local i
  for ((i = 0; i < 10; i++)); do
    answers
  done
  # curl leaves when it has its 13 bytes, and close() is the last call.
  wait_until has_closed 10
  end_trace
}

has_closed() { # number
  awk -v n="$1" '/^epoll_p?wait/ { begun = 1 }
    begun && /^close/ { closes++ }
    END { exit closes < n }' "$log"
}

# Ends the traced server, and waits until its trace is complete.
end_trace() {
  end_by TERM
  wait_until grep -q 'killed by SIGTERM' "$log"
  cat "$log"
}

# Prints the calls made for ten GETs, with their number: those between the
# first and the last wait, but for the waits, what stdio does for the console
# and what malloc() does.
calls_of_gets() {
  awk -F '(' '/^epoll_p?wait/ {
      begun = 1
      for (call in since)
        all[call] += since[call]
      delete since
    }
    begun && /^[a-z]/ { since[$1]++ }
    END { for (call in all) print call, all[call] }' "$log" |
    grep -vE '^(epoll_p?wait|write|.*stat.*|brk|mmap|munmap|madvise) ' | sort
}

# Runs a stage under strace while a request of a little over 4 KB is served
# that was there at once. Sets $log.
trace_long_request() { # name
  log=$BATS_TEST_TMPDIR/strace
  RUN="strace -D -o $log" start "$1"
  connect
  wait_until has_read_all
  wait_until grep -q '^epoll_ctl(.*EPOLL_CTL_ADD.*u32=[^3]' "$log"
  kill -STOP "$pid"
  printf 'GET /%04090d HTTP/1.0\n\n' 1 >&"$client"
  kill -CONT "$pid"
  gives "hello $1" receive
  end_trace
}
