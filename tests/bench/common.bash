# What the parts of the benchmark share: servers, clients, and numbers.
# Sourced by `run`, which sets $work, $bench, $on_client_core and $on_server_core, and
# by notes/threads.

declare -A pid=() port=() worker=() # of each server that runs

fail() { # text [file-that-says-more]
  [ -z "${2-}" ] || cat "$2" >&2
  echo "bench: $1" >&2
  exit 1
}

# Runs a command until it succeeds. Fails when that takes 20 seconds.
wait_until() {
  local end=$((SECONDS + 20))
  until "$@"; do
    ((SECONDS < end)) || fail "gave up waiting until: $*"
    sleep 0.02
  done
}

clear_line() {
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

# --- Servers -----------------------------------------------------------------

# Asks the kernel, for the console does not say it (it is /dev/null, the cheapest there
# is), and a client would be counted, or drive the tutorial's server mad.
listens_or_ended() { # name
  ss -Hltn "sport = :${port[$1]}" | grep -q . || ! kill -0 "${pid[$1]}" 2>/dev/null
}

# Starts a server, and waits until it listens: a stage, deferred (05 as exercise
# 5.5 leaves it), nginx, nginx-deferred, or python (the tutorial's). $tracer, if
# set, is put before it. $console is its stdout.
start_server() { # name [option...]
  local name=$1 tries command
  shift
  for ((tries = 0; tries < 5; tries++)); do
    # A free one below the range from which the kernel takes clients' ports.
    port[$name]=$((20000 + RANDOM % 10000))
    ! ss -Htan "sport = :${port[$name]}" | grep -q . || continue
    case $name in
    nginx*)
      mkdir -p "$work/$name"
      sed "s/@PORT@/${port[$name]}/; s/@OPTION@/${name:6}/" "$bench/nginx.conf" \
        >"$work/$name/conf"
      command=(nginx -p "$work/$name/" -c "$work/$name/conf")
      ;;
    # -E: no PYTHONUNBUFFERED, so that its console costs it next to nothing.
    python) command=("$python" -E "$bench/tutorial.py" "${port[$name]}") ;;
    *) command=("$work/$name/$name" "$@" "${port[$name]}") ;;
    esac
    # shellcheck disable=SC2086 # words
    $on_server_core ${tracer-} "${command[@]}" </dev/null \
      >"${console:-/dev/null}" 2>"$work/$name.stderr" &
    pid[$name]=$! worker[$name]=$!
    wait_until listens_or_ended "$name"
    if kill -0 "${pid[$name]}" 2>/dev/null; then
      [[ $name != nginx* ]] || wait_until find_worker "$name"
      return
    fi
  done
  fail "$name does not start" "$work/$name.stderr"
}

# It is nginx's worker that serves, not the process that was started. It has
# its title when it is ready.
find_worker() { # name
  worker[$1]=$(pgrep -P "${pid[$1]}" -f 'worker process')
}

stop_server() { # name
  kill -TERM "${pid[$1]}" 2>/dev/null
  wait "${pid[$1]}" 2>/dev/null
}

# Ends everything that is still there. For EXIT.
clean_up() {
  trap '' INT TERM
  clear_line
  jobs -pr | xargs -r kill 2>/dev/null
  wait 2>/dev/null
  rm -rf "$work"
}

# Prints the CPU time that a server has used, in nanoseconds: proc(5) has it in
# clock ticks of 10 ms, the scheduler's own count is finer.
nanoseconds() { # name
  cut -d ' ' -f 1 "/proc/${worker[$1]}/schedstat"
}

# Prints how much of a server's memory is resident, in KB.
resident() { # name
  awk '/^Rss:/ { print $2 }' "/proc/${worker[$1]}/smaps_rollup"
}

# --- Clients -----------------------------------------------------------------

# Runs a load in the background, for a signal must not wait for its end. Its
# output goes to $work/load.
run_load() { # command...
  # shellcheck disable=SC2086 # words
  timeout 200 $on_client_core "$@" >"$work/load" 2>&1 &
  wait $! || fail "$1 has failed" "$work/load"
}

# Sends a number of requests, a connection for each, 50 at once.
ask() { # name requests
  run_load ab -q -n "$2" -c 50 "http://127.0.0.1:${port[$1]}/"
  [[ $(sed -n 's/^\(Complete\|Failed\) requests: *//p' "$work/load") == \
    "$2"$'\n0' ]] || fail "$1 did not answer all requests" "$work/load"
}

# Sends requests as ask does, and records the server's CPU time for each.
record_cpu_time() { # name case requests
  local before after
  before=$(nanoseconds "$1")
  ask "$1" "$3"
  after=$(nanoseconds "$1")
  record "$1" "$2" 'CPU time per request' microseconds \
    "$(awk "BEGIN { print ($after - $before) / 1e3 / $3 }")"
}

# Opens connections that say nothing. They end with the server, which the last
# command waits for.
hold() { # port number
  local left=$2 fd
  for ((; left > 0; left--)); do
    exec {fd}<>"/dev/tcp/127.0.0.1/$1" || return
  done
  read -r -u "$fd"
}

# Brings a server's idle connections to a number, from the number before, and
# waits until it has taken them, and has done with those that asked.
hold_idle() { # name before number
  if (($3 > $2)); then
    hold "${port[$1]}" $(($3 - $2)) 2>/dev/null &
  fi
  wait_until has_idle "$1" "$3"
}

has_idle() { # name number
  (($(ss -Htnp "sport = :${port[$1]}" | grep -c pid=) == $2)) # others are in the backlog
}

# --- Numbers -----------------------------------------------------------------

# Writes down what was measured in this round.
record() { # server case quantity unit value
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$part" "$@" "$round" >>"$work/raw"
}
