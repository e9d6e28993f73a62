# What the suites share: starting and ending servers, talking to them, looking
# at them from outside. Sourced by every suite with `load common`.
#
# The programs, and what is built anew from their sources, are taken from $PROGRAMS, a
# folder laid out like the project's own, which is the default. $RUN, if set, is put
# before each of them. The suites' C programs are built once, into $TOOLS.

bats_require_minimum_version 1.5.0

PROJECT=${BASH_SOURCE[0]%/tests/*}
PROGRAMS=${PROGRAMS:-$PROJECT}
DEADLINE=${DEADLINE:-60} # a wait ends after 200 * DEADLINE looks
PATIENCE=${PATIENCE:-1}  # seconds of sleep after which a wait is in vain

# bats looks at each command before it runs, to know which has failed, and that takes
# half a millisecond. bash by itself knows when one has failed. And bats starts date
# before each test, for a time that it does not print (newer versions: for a variable).
set +T
bats_error_trap() {
  bats_check_status_from_trap
  [ -n "$BATS_DEBUG_LAST_STACK_TRACE_IS_VALID" ] || bats_capture_stack_trace
  BATS_DEBUG_LAST_STACK_TRACE_IS_VALID=1
}
get_mills_since_epoch() { [ -n "${1-}" ] || echo 0; }

# The stage's number: 06 has two programs.
STEP=${STAGE-} STEP=${STEP%%_*} STEP=${STEP/keep/06}

# The server's name: STAGE=upper stands for two programs.
# shellcheck disable=SC2034 # for the suites
NAME=${STAGE-}
[ "$NAME" != upper ] || NAME=upper_server

# Runs a command until it succeeds, and fails when that is in vain.
wait_until() {
  local all_looks=0 looks=0 turns spent did='was busy when last seen'
  until "$@"; do
    if in_vain && ! "$@"; then # when all is at rest, look once more
      echo "this did not happen: $(in_words "$@")"
      [ -n "${pid-}" ] || return 1
      ! sleeps || did=slept
      ! alive "$pid" Tt || did='was stopped'
      alive || did='had ended'
      echo "the server $did"
      return 1
    fi
    nap "0.00$((looks > 4 ? 5 : 1))"
  done
}

# Runs a client to its end; or, if that is in vain, ends it and returns 124.
patiently() { # command...
  local code=0 started
  in_background "$@"
  wait_until ended "$started" >/dev/null || {
    kill "$started" 2>/dev/null || true
    code=124
  }
  wait "$started" 2>/dev/null || code=$((code > 0 ? code : $?))
  return "$code"
}

# True when a wait is in vain. That depends on what the server does, not on time,
# because a machine may be busy. For 200 looks (a second; $PATIENCE seconds where time
# matters) the server has slept except for a few turns, or has ended, and nothing else
# has work to do; or it has worked for two seconds. (If the whole machine pauses, so do
# the looks.)
in_vain() { # [looks]
  local now_turns=0 now_spent=0 others
  (((all_looks += ${1-1}) < DEADLINE * 200)) || return 0
  [ -n "${pid-}" ] || return 1
  { read -r now_spent _ now_turns <"/proc/$pid/schedstat"; } 2>/dev/null || true
  if [ -z "${turns-}" ]; then # the first look
    turns=$now_turns spent=$now_spent
  fi
  ((now_spent - spent < 2000000000 * PATIENCE)) || return 0
  ((looks += ${1-1}))
  ((looks > PATIENCE * 200)) || return 1
  # Looks twice: what worked in between has had the processor.
  ((now_turns - turns > 20)) || alive "$pid" ^SZX || is_busy || { others=$ran &&
    nap 0.02 && is_busy; } || ((ran != others)) || return 0
  looks=1 turns=$now_turns
  return 1
}

# True when something that this test has started has work to do (a descendant, or a
# daemon, as strace -D is, known by its environment), or the kernel has packets to
# process or to send again: a busy machine loses some, even on loopback. Sets $ran to
# how often these programs, except the server, have had the processor.
is_busy() {
  local one all times
  ps -eL -o pid=,ppid=,stat=,comm= | awk -v test=$$ '
    { parent[$1] = $2 }
    $3 ~ /^[RD]/ && $4 ~ /^(ksoftirqd|backlog_napi|ktimers)/ { found = 1 }
    $3 ~ /^[RD]/ && $4 !~ /^(ps|m?awk)$/ { busy[$1] }
    END {
      for (one in busy)
        for (; one > 1; one = parent[one])
          if (one == test)
            found = 1
      exit !found
    }' && return
  # What is on its way to a socket where nothing waits to be read (or a SYN).
  ss -4Htno "sport = :${port-1} or dport = :${port-1}" | awk '
    { unread[$4, $5] = $2 }
    /timer:\((on|persist)/ { sends[$5, $4] }
    END {
      for (one in sends)
        if (unread[one] == 0)
          exit 0
      exit 1
    }' && return
  mapfile -t all < <(grep -lszxF "BATS_TEST_TMPDIR=$BATS_TEST_TMPDIR" \
    /proc/[0-9]*/environ | cut -d / -f 3)
  ran=0
  for one in "${all[@]}"; do # when grep has ended, which is one of them
    ! alive "$one" RD || return 0
    { read -r _ _ times <"/proc/$one/schedstat"; } 2>/dev/null || continue
    [ "$one" = "$pid" ] || ((ran += times))
  done
  return 1
}

# Sleeps. (A pipe to which nobody writes costs no new process. Here as elsewhere,
# `read -t -u` would abort bash where the descriptor is 1,024 or more.)
nap() { # seconds
  [ -n "${pipe-}" ] || exec {pipe}<> <(:)
  read -rt "$1" <&"$pipe" _ || true
}

# Says what is waited for, to somebody who does not know these functions.
in_words() { # command...
  case $1 in
  has_descriptors) echo "the server has $2 descriptors open$(! alive || echo " (it has $(descriptors))")" ;;
  eval) echo 'the server has done its part' ;;
  has_response) echo 'the server says something' ;;
  ended) echo 'the program ends' ;;
  says) echo "the server says: $2" ;;
  listens) echo 'the server says where it listens' ;;
  is_quiet) echo 'the server has nothing to do for a while' ;;
  is_not_read) echo "the server sleeps, and leaves unread what the client sends
$(ss -4ton "dst 127.0.0.1:$port or src 127.0.0.1:$port")" ;;
  has_arrived) echo 'what the clients have sent has arrived' ;;
  all_is_read) echo 'the server has read all that was sent' ;;
  is_full) echo 'the client cannot send any more' ;;
  console_shows) echo "the console shows: $2" ;;
  grep) echo "the output has: ${*:(-2):1}" ;;
  sleeps) echo 'the server has nothing more to do' ;;
  *) echo "${*//_/ }" ;;
  esac
}

# Prints two texts and fails where they differ.
same() { # actual expected
  [ "$1" = "$2" ] || {
    show_both "$2" "$1"
    return 1
  }
}

# Prints the lines of two texts; where they differ, both.
show_both() { # expected got
  diff -a --old-line-format='expected: %L' --new-line-format='got:      %L' \
    --unchanged-line-format='          %L' \
    <(cat -v <<<"${1:-(nothing)}") <(cat -v <<<"${2:-(nothing)}") |
    grep -C 2 '^[eg]' | sed 's/\^M$/\\r/' || true
}

# Fails unless a command succeeds and prints, byte for byte, what another one
# prints. ($(...) would lose a NUL, and newlines at the end.)
gives() { # expecting-command command...
  local expected=$BATS_TEST_TMPDIR/expected got=$BATS_TEST_TMPDIR/got code=0
  eval "$1" >"$expected"
  shift
  "$@" >"$got" || code=$?
  if ((code != 0)) || ! cmp -s "$got" "$expected"; then
    [[ $code != 124 || $1 == receive_* ]] || echo 'seen: the server does not end the connection'
    [[ $code == @(0|124) ]] || echo 'seen: the connection was reset'
    [ "$1" != ask_for ] || printf 'sent:     %s\n' "${2:0:300}" | cat -v
    (($(wc -c <"$expected") < 600)) ||
      echo "seen: $(wc -c <"$got") bytes of $(wc -c <"$expected"), correct up to" \
        "byte $(cmp "$got" "$expected" 2>&1 | sed -nE 's/.* (byte|char) ([0-9]+).*/\2/p; s/.* empty$/0/p')"
    show_both "$(tail -c 600 "$expected" | tr '\0' '@')" \
      "$(tail -c 600 "$got" | tr '\0' '@')"
    return 1
  fi
}

# Builds one of the suites' C programs, if it is not in $TOOLS yet.
make_tool() { # name
  export TOOLS=${TOOLS:-$BATS_RUN_TMPDIR}
  [ -e "$TOOLS/$1" ] || "$PROJECT/tests/tool" "$1"
}

# --- Servers ---------------------------------------------------------------

# Prints the path of the program NAME, or sets a variable to it.
program() { # name [variable]
  local folder=$1
  case $1 in
  upper_*) folder=04_epoll_lt ;;
  keep_alive) folder=06_tcp_options ;;
  esac
  printf ${2:+-v "$2"} '%s' "$PROGRAMS/$folder/$1"
}

# Starts a program on a port that the kernel chooses, and waits until it
# listens. Sets $pid, $port, $url, and $without_clients to how many descriptors it
# has open then; its output goes to $out and $err.
start() { # name [option...]
  local path
  program "$1" path
  start_program "$path" "${@:2}" 0
}

start_program() { # path argument...
  local here=$BATS_TEST_TMPDIR/$((++starts)).$BASHPID run open line=
  out=${console:-$here.out} err=$here.err
  : >"$out"
  # $RUN is a command with its options, quoted where they have to be.
  eval "run=(exec ${RUN-})"
  # env would take a path with a = in it for a variable.
  [[ "${run[*]}" != *env\ * || $1 != *=* ]] || run+=(sh -c 'exec "$0" "$@"')
  (
    # Closes what it would inherit: bats waits for a program that has its
    # descriptor 3, and a client is not gone while another program has its socket.
    for fd in "/proc/$BASHPID/fd/"*; do
      fd=${fd##*/}
      ((fd <= 2)) || eval "exec $fd>&-"
    done
    "${run[@]}" "$@" >>"$out" 2>"$err" </dev/null
  ) &
  pid=$!
  echo "$pid" >>"$BATS_TEST_TMPDIR/pids"
  wait_until listens
  if ! alive; then
    echo 'the server has ended, and said:'
    timeout 1 cat "$err" "$out" || true # it may be a pipe
    return 1
  fi
  port=${line%/} port=${port##*:}
  url=http://127.0.0.1:$port/
  wait_until eval 'sleeps || ! alive' >/dev/null || true # what it opens now counts too
  open=("/proc/$pid/fd/"*) without_clients=${#open[@]}
}

# Starts the stage with a pipe for a console, which $reader has open.
start_on_pipe() {
  local console=$BATS_TEST_TMPDIR/console
  mkfifo "$console"
  # shellcheck disable=SC2034 # for the suites
  exec {reader}<>"$console"
  start "$STAGE"
}

# Starts a command in the background, which ends with the test. Sets $started.
in_background() { # command...
  "$@" <&0 3>&- &
  started=$!
  echo "$started" >>"$BATS_TEST_TMPDIR/pids"
}

# Prints how to start a program with a library of ours before libc, and variables for
# it.
preload() { # name variable...
  make_tool "$1.so" || echo false # which ends at once
  echo "env LD_PRELOAD=$1.so LD_LIBRARY_PATH=${TOOLS@Q}
    ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 ${*:2}"
}

# Prints how to start a program so that strace does something to some of its calls
# (strace(1), -e inject), and writes them down, if told to.
injecting() { # calls what [file]
  local file=${3-/dev/null}
  echo "strace -f -D -o ${file@Q} -e trace=$1 -e inject=$1:$2"
}

listens() { # and sets $line
  { IFS= read -rt "$DEADLINE" line <"$out" && [[ $line == 'listening on '* ]]; } || ! alive
}

# Fails unless a program runs, and is in one of these states (proc(5)), if any.
alive() { # [pid [states]]
  local stat=
  read -r stat 2>/dev/null <"/proc/${1:-$pid}/stat" || true
  stat=${stat##*) }
  [[ $stat == [${2-^ZX}]* ]]
}

ended() { # [pid]
  ! alive "${1:-$pid}"
}

# shellcheck disable=SC2120 # suites do
sleeps() { # [pid]
  alive "${1:-$pid}" S
}

# Stops a program, by default the server, and waits until it has stopped.
stop() { # [pid]
  kill -STOP "${1-$pid}"
  PATIENCE=10 wait_until alive "${1-$pid}" Tt # t: under strace
}

# As Ctrl-Z and fg do: epoll_wait(2) says EINTR then.
stop_and_continue() { # [pid]
  wait_until sleeps "${1-$pid}"
  stop "${1-$pid}"
  kill -CONT "${1-$pid}"
}

# Waits until the server has ended, and fails if its exit code differs.
ends_with() { # code
  local code=0
  wait_until ended || return
  wait "$pid" || code=$?
  [ "$code" -eq "$1" ] || {
    echo "exit code $code, not $1; on stderr:"
    cat "$err"
    return 1
  }
}

# Sends a signal, and fails unless it kills the server, as it does without a handler.
end_by() { # signal
  kill "-$1" "$pid"
  ends_with $((128 + $(kill -l "$1")))
}

# Starts a server if none takes clients: 01_blocking takes only one.
have_server() {
  [[ -n ${pid-} && $STAGE != 01_blocking ]] || start "$STAGE"
}

teardown() {
  end_programs
}

# Ends every program that the test has started. (If one has ended, its pid may be
# another program's by now.)
end_programs() {
  local one environment
  [ -e "$BATS_TEST_TMPDIR/pids" ] || return 0
  while read -r one; do
    { mapfile -d '' environment <"/proc/$one/environ"; } 2>/dev/null || continue
    [[ " ${environment[*]} " != *" BATS_RUN_TMPDIR=$BATS_RUN_TMPDIR "* ]] ||
      { kill -KILL "$one" && wait "$one"; } 2>/dev/null || true
  done <"$BATS_TEST_TMPDIR/pids"
}

# Builds a program anew, in a folder of its own, and prints its path.
build() { # name make-argument...
  local name=$1 from folder
  from=$(program "$name") from=${from%/*}
  folder=$BATS_TEST_TMPDIR/build.$BASHPID/${from##*/}
  mkdir -p "$folder"
  cp "$from/"*.[ch] "$from/Makefile" "$folder"
  make -s -C "$folder" "${@:2}" "$name" >&2 || return
  echo "$folder/$name"
}

# --- Clients ---------------------------------------------------------------

# Prints what a stage answers to a GET that ends the connection.
hello() {
  local version=1.0 last=
  [[ $STEP != 06 ]] || version=1.1 last=$'Connection: close\r\n'
  printf 'HTTP/%s 200 OK\r\nDate: Mon, 1 Jan 1996 01:01:01 GMT\r\n' "$version"
  printf 'Content-Type: text/plain\r\n'
  printf 'Content-Length: 13\r\n%s\r\nHello, world!' "$last"
}

too_large() {
  printf 'HTTP/1.0 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n'
}

# Sends its input to the server, half-closes, and prints what comes back. (As connect, it
# starts a server if there is none.)
ask() {
  [ -n "${pid-}" ] || start "$NAME"
  patiently nc -N 127.0.0.1 "$port"
}

# Prints the response to what printf makes of its arguments.
ask_for() { # format [argument...]
  printf "$@" >"$BATS_TEST_TMPDIR/asked"
  ask <"$BATS_TEST_TMPDIR/asked"
}

# Opens a connection that stays open, on descriptor $client, and sends what printf
# makes of its arguments, if there are any.
connect() { # [format [argument...]]
  [ -n "${pid-}" ] || start "$NAME"
  exec {client}<>"/dev/tcp/127.0.0.1/$port" || return
  (($# == 0)) || printf "$@" >&"$client"
}

# Prints what the server sends to $client, to the end of the stream. Fails if the stream
# does not end (124), or ends with a reset.
receive() {
  local all_looks=0 looks=0 turns spent more=20
  local part code said=$BATS_TEST_TMPDIR/receive.$BASHPID # others may run too
  while :; do
    code=0 part='' # bash leaves it as it was where the connection is reset
    IFS= read -rd '' -t 0.1 part <&"$client" 2>"$said" || code=$?
    printf '%s' "$part"
    ((code > 128)) || break
    # When all is at rest, look once more; but somebody may send without end.
    ! in_vain 20 || { ((more-- > 0)) && has_response; } || return 124
  done
  ((code > 0)) || { printf '\0' && return; } # which ended it
  [ ! -s "$said" ]
}

# Prints this many bytes of it. (When killed, head alone does not write what has come.)
receive_bytes() { # number
  patiently stdbuf -o 0 head -c "$1" <&"$client"
}

# Prints this many bytes (a few) from each of $clients, until one gets none.
receive_from_each() { # number
  local reply
  for client in "${clients[@]}"; do
    wait_until has_response >&2 || return 124
    reply=''
    # With -N, bash loses bytes when time is up before all of them have come.
    IFS= read -rN "$1" -t "$DEADLINE" reply <&"$client" || true
    printf '%s' "$reply"
  done
}

# Fails where the server sleeps, half a second after all has arrived, and has answered.
hears_nothing() {
  wait_until has_arrived
  nap 0.5
  wait_until sleeps && ! has_response
}

# Sends what printf makes of its arguments, in one piece. (bash would send each
# line by itself.)
send() { # format [argument...]
  printf "$@" >"$BATS_TEST_TMPDIR/sent"
  cat "$BATS_TEST_TMPDIR/sent" >&"$client"
}

# Connects so many clients, in $clients. Each sends, in turn, what connect is given.
connect_many() { # number [format [argument...]]
  clients=()
  while ((${#clients[@]} < $1)); do
    connect "${@:2}"
    clients+=("$client")
  done
}

# Starts a program that may open 16 descriptors, and connects 20 clients: the last
# ones wait in the backlog.
start_crowded() { # name
  RUN="${RUN-} prlimit --nofile=16 --" start "$1"
  connect_many 20
  wait_until says 'Too many open files'
}

# True when the server's kernel has all that its clients have sent. (On a busy machine
# even loopback takes its time.)
has_arrived() {
  local waiting=$'\n[0-9]+ +[1-9]' # (=~ would take it for plain text in quotes)
  [[ ! $'\n'$(ss -4Htn state established "dst 127.0.0.1:$port") =~ $waiting ]]
}

# True when a text is on the server's stderr.
says() { # text
  [[ $(<"$err") == *"$1"* ]]
}

# Prints lines of the console once the server rests: it may print a request after
# answering it.
shown() { # grep-argument...
  settles "$pid" >&2 || return
  grep "$@" "$out"
}

# Connects a client that says nothing, and stays, on $client.
silent_client() {
  connect
  wait_read "$client"
}

# Connects one that says the beginning of a request.
client_in_mid_request() {
  connect 'GET / HT'
  wait_read "$client"
}

# So many times: connects, sends its input, half-closes if told to, reads some bytes of
# the answer, and resets the connection.
resets() { # bytes times [half]
  patiently "$PROJECT/tests/reset" "$port" "$@"
}

disconnect() { # descriptor
  eval "exec $1>&-"
}

# Fails unless the server answers a fresh client.
answers() {
  local client reply file=$BATS_TEST_TMPDIR/reply.$BASHPID
  local request='GET / HTTP/1.0\r\n\r\n'
  [ "$STAGE" != upper ] || request=hello
  connect "$request"
  if [ "$STAGE" = upper ]; then
    wait_until has_response && IFS= read -rN 5 -t "$DEADLINE" reply <&"$client"
    same "$reply" HELLO
  else
    receive >"$file" || {
      (($? == 124)) && echo 'seen: the server does not end the connection' ||
        echo 'seen: the connection was reset'
      return 1
    }
    IFS= read -rd '' reply <"$file" || true # to its end
    same "${reply##*$'\n'}" 'Hello, world!'
  fi
  disconnect "$client"
}

# --- Connections that stay open -----------------------------------------------

# Prints so many requests. Each has the length of one of curl's.
requests() { # number
  seq -f $'GET /%03.0f HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: tests\r\nAccept: */*\r\n\r' "$1"
}

# Prints so many responses that keep the connection.
hellos() { # number
  local one all
  one=$(hello)
  one=${one/Connection: close$'\r\n'/} all=$one
  while ((${#all} < $1 * ${#one})); do all+=$all; done
  printf '%s' "${all:0:$1*${#one}}"
}

# Prints, sorted, how many microseconds the last nine of ten responses take.
later_times() {
  patiently curl -sS -o /dev/null -w '%{stderr}%{time_total}\n' "${url}[1-10]" \
    2>"$BATS_TEST_TMPDIR/times"
  tail -n +2 "$BATS_TEST_TMPDIR/times" | tr -d ., | sort
}

# --- The kernel's side -----------------------------------------------------

descriptors() {
  local all=("/proc/$pid/fd/"*)
  echo "${#all[@]}"
}

has_descriptors() { # number
  local all=("/proc/$pid/fd/"*)
  [ "${#all[@]}" -eq "$1" ]
}

# Fails where one of these programs, by default the server, works while nothing happens
# for $look seconds: one that sleeps never gets the processor, except $tries times a
# second.
rests() { # [pid...]
  local one turns before=() began=$SECONDS
  (($# > 0)) || set -- "$pid"
  for one; do
    settles "$one"
    before+=("$turns")
  done
  nap "${look-0.2}"
  for one; do
    settles "$one"
    turns=$((turns - before[0])) before=("${before[@]:1}")
    ((turns <= ${tries-0} * (1 + SECONDS - began))) || {
      echo "seen: nothing happened for ${look-0.2} s, and the server woke $turns times"
      return 1
    }
  done
}

# Waits until a program sleeps, and sets $turns to how often it has had the processor.
# Fails if it works for half a second, or waits to until the deadline.
settles() { # pid
  local spent=0 all_looks=0 most=
  until threads_sleep "$1"; do
    read -r _ <"/proc/$1/schedstat" || return # it has ended
    most=${most:-$((spent + 500000000))}
    if ((spent > most || ++all_looks > DEADLINE * 200)); then
      echo 'seen: the server does not come to rest, though nothing happens'
      return 1
    fi
    nap 0.005
  done
}

# True when all threads and children of a program sleep. Sets $spent and $turns to how
# long, and how often, they have had the processor.
threads_sleep() { # pid
  local one children time times asleep=true
  spent=0 turns=0
  { read -ra children <"/proc/$1/task/$1/children"; } 2>/dev/null || true
  for one in "/proc/$1/task/"* "${children[@]/#//proc/}"; do # it may end meanwhile
    alive "${one##*/}" SZX || asleep=false
    { read -r time _ times <"$one/schedstat"; } 2>/dev/null || time=0 times=0
    ((spent += time, turns += times, 1))
  done
  "$asleep"
}

# Prints the server's resident memory in KB.
resident() {
  awk '/^Rss:/ { print $2 }' "/proc/$pid/smaps_rollup" # exact, as VmRSS is not
}

# Waits until the server has accepted the clients on these descriptors, by
# default $client, and read all that they sent, or has closed them.
wait_read() { # [descriptor...]
  make_tool read_all
  wait_until all_is_read "${@-$client}"
}

all_is_read() { # descriptor...
  ((looks += 9, all_looks += 9)) # of wait_until: this one may take 50 ms
  "$TOOLS/read_all" "$@"
}

# True when bytes, or an end, wait for the client on $client.
has_response() {
  read -t 0 <&"$client"
}

# Prints the server's sockets in a state, a line each. (At another address, a port of
# the same number may be another test's.)
sockets() { # state
  ss -4Htn state "$1" "src 127.0.0.1:$port"
}

has_sockets() { # state number
  [ "$(sockets "$1" | wc -l)" -eq "$2" ]
}

# True when the kernel will keep a socket in TIME_WAIT: with too many, it closes a new
# one at once (tcp(7), tcp_max_tw_buckets).
keeps_time_wait() {
  local kept most
  read -r _ _ _ _ _ _ kept _ < <(grep ^TCP: /proc/net/sockstat)
  read -r most </proc/sys/net/ipv4/tcp_max_tw_buckets
  ((kept < most - 1000))
}

# True when the server sleeps and leaves a client's bytes unread, because its own find no
# room at the client.
is_not_read() {
  ((looks += 3)) # of wait_until: one with ss takes its time
  set -- established "src 127.0.0.1:$port" '[1-9]'
  sleeps && waits_for_room "$@" && look=0.3 is_quiet && waits_for_room "$@"
}

# True when bytes wait on one side of a connection for room on the other: TCP asks now
# and then whether there is some (persist, ss(8)), or sends a segment again that found
# none (on). A connection at work looks the same, so look twice, while the sender sleeps.
waits_for_room() { # state filter [how its line begins]
  local line=$'\n'${3-}'[^'$'\n'']*timer:[(](on|persist)'
  [[ $'\n'$(ss -4Htno state "$1" "$2") =~ $line ]]
}

# True when the server has had nothing to do for $look seconds.
is_quiet() {
  local turns before
  sleeps && read -r _ _ before <"/proc/$pid/schedstat" && nap "${look-0.1}" &&
    sleeps && read -r _ _ turns <"/proc/$pid/schedstat" && ((turns == before))
}

# --- What all servers promise ------------------------------------------------

# Fails unless a program refuses arguments in the way that all do.
refuses() { # name what-it-names argument...
  local output status=0 path here=$BATS_TEST_TMPDIR/refused
  program "$1" path
  patiently "$path" "${@:3}" >"$here.out" 2>"$here" </dev/null || status=$?
  output=$(<"$here.out") stderr=$(<"$here")
  echo "arguments: ${*:3}; exit code: $status; stdout: $output; stderr: $stderr"
  [[ $status = 2 && $output = '' ]]
  [[ $stderr == "$1: "*"'$2'"$'\n'"usage: $1 "+([^$'\n']) ]]
}

# Starts a program whose accept() always fails, one where every other call fails, and one
# where the first does. Fails unless they try again, but not before a second has passed,
# say so once, and serve those who wait.
survives_accept() { # name
  local began=${EPOCHREALTIME/[.,]/} second tries call=accept,accept4
  RUN=$(injecting $call error=ENOBUFS "$log") start "$1"
  connect 'GET / HTTP/1.0\n\n'
  wait_until says 'No buffer space'
  RUN=$(injecting $call error=ENFILE:when=1+2 "$log.second") start "$1"
  in_background serves_on answers
  second=$started
  if [[ $1 != 02_* ]]; then
    # Here, epoll_ctl() does not take the listener back.
    RUN="$(injecting $call error=ENFILE:when=1) $(preload fault \
      FAULT_CALL=listener FAULT_ERRNO=ENOMEM FAULT_FIRST=3 FAULT_SECOND=3 \
      FAULT_LOG="${BATS_TEST_TMPDIR@Q}/fault")" start "$1"
    in_background serves_on silent_client
  fi
  wait "$second"
  wait "$started" || {
    ! grep -qs INJECTED "$BATS_TEST_TMPDIR/fault" ||
      echo 'seen: epoll_ctl fails, too, for the listening socket'
    return 1
  }
  tries=$(grep -cE '^([0-9]+ +)?accept' "$log")
  began=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
  echo "seen: accept was called $tries times within $began ms, not once a second"
  ((tries <= 1 + began / 1000))
}

serves_on() { # answers|silent_client
  local PATIENCE=2
  "$1" # a second later
  wait_until eval 'is_quiet || ended' >/dev/null
  alive || ! says 'Cannot allocate memory' || return 0 # it gives up, and says so
  if [ "$1" = answers ]; then
    connect 'GET / HTTP/1.0\n\n'
    wait_until accept_is_called_again
    # The others have to wait again in another test, out of descriptors.
    if [ "$STEP" = 02 ]; then gives hello receive; else wait_until is_quiet; fi
  else
    answers
  fi
  same "$(sed '/Cannot allocate memory/d; s/accept4/accept/' "$err")" \
    "$NAME: accept: Too many open files in system"
}

accept_is_called_again() {
  [[ $(<"$log.second") == *INJECTED*INJECTED* ]]
}

# Fails if the server forgets a client because accept() failed just before, or if it
# prints an error.
accepts_behind() { # name
  local error
  for error in ECONNABORTED EINTR; do
    RUN=$(injecting accept,accept4 error="$error:when=1..20") start "$1"
    answers # more than a turn later
    same "$(<"$err")" ''
  done
}

# Starts a program, and fails unless it survives answering clients that are gone.
answers_the_gone() { # name request
  start "$1"
  stop
  # Half-closed and then reset: a write causes a SIGPIPE.
  resets 0 5 half <<<"$2"
  kill -CONT "$pid"
  answers
  wait_until has_descriptors "$without_clients"
}

# Starts a program and fails unless its limit of descriptors is the size of its
# table, or the hard limit where that is lower.
limits_descriptors() { # name table-size
  local number=$2
  (($(ulimit -Hn) >= number)) || number=$(ulimit -Hn)
  start "$1"
  same "$(prlimit --raw --noheadings -n -o SOFT -p "$pid")" "$number"
  RUN='prlimit --nofile=64:200 --' start "$1"
  same "$(prlimit --raw --noheadings -n -o SOFT -p "$pid")" 200
}

# Fails where a recv or send that says one of these errors is not made again.
repeats_calls() { # name error...
  local error call
  for error in "${@:2}"; do
    for call in recvfrom sendto; do # alone: one may undo what the other has done
      RUN=$(injecting "$call" error="$error:when=1") start "$1"
      answers
    done
  done
}

# Fails unless the server closes the client on whose socket a call fails, after this
# response or none, and no other client. (The number counts only calls on client
# sockets: how else a program uses the call is its own affair.)
closes_only() { # name call number request [response]
  RUN=$(preload fault FAULT_CALL="$2" FAULT_ERRNO=ENOMEM FAULT_FIRST="$3" \
    FAULT_SECOND="$3" FAULT_LOG="${BATS_TEST_TMPDIR@Q}/fault") start "$1"
  : >"$BATS_TEST_TMPDIR/fault"
  connect
  send '%s' "$4" # in one piece: the rest of it would meet a reset
  receive >"$BATS_TEST_TMPDIR/response" || true # an end, or a reset
  # accept4() or ioctl() may do what fcntl() does, and a response that need not wait for
  # room costs no epoll_ctl(). Elsewhere, the call may come before the response.
  [[ $2 != fcntl && $3 == 1 || -s $BATS_TEST_TMPDIR/fault ]] || return 0
  [[ ! -s $BATS_TEST_TMPDIR/response ]] ||
    same "$(<"$BATS_TEST_TMPDIR/response")" "${5-}"
  wait_until has_descriptors "$without_clients"
  same "$(grep -c INJECTED "$BATS_TEST_TMPDIR/fault")" 1
  disconnect "$client"
  answers
  # Nothing that this client sent is taken for the next one's.
  [[ $1 == upper* ]] || same "$(shown -E 'GET|POST' | tail -n 1)" 'GET / HTTP/1.0'
}

# --- Traces ----------------------------------------------------------------

log=$BATS_TEST_TMPDIR/strace # what strace writes

# shellcheck disable=SC2034 # for the suites
# The C library decides which of these a program calls.
WAITS='pselect6,?poll,ppoll,?epoll_wait,epoll_pwait,?epoll_pwait2'

# Ends the traced server, and waits until its trace is complete.
end_trace() {
  end_by TERM
  wait_until grep -q 'killed by SIGTERM' "$log"
  cat "$log"
}
