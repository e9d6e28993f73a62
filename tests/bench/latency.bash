# When TCP sends what 06 wrote: how long a request takes on a connection that
# stays open, and in how many segments its response leaves.

MODES=(plain cork nodelay)
declare -A OPTIONS=([plain]='' [cork]=--cork [nodelay]=--nodelay)
REQUEST=$'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'

measure_latency() {
  local mode server case batch
  for mode in "${MODES[@]}"; do
    # shellcheck disable=SC2086 # one option or none
    console=$work/$mode.console start_server "06_tcp_options--$mode" ${OPTIONS[$mode]}
  done
  while next_round "$ROUNDS" 6; do
    for batch in 1 16; do
      for mode in "${MODES[@]}"; do
        server=06_tcp_options--$mode
        case='one at a time'
        [ $batch = 1 ] || case='16 pipelined'
        step "$mode, $case"
        time_requests
        count_segments
      done
    done
  done
  for mode in "${MODES[@]}"; do
    stop_server "06_tcp_options--$mode"
  done
}

# With one client, a request's time is that between two responses.
time_requests() {
  local script=()
  [ "$batch" = 1 ] || script=(-s "$bench/pipeline.lua")
  run_load wrk -t 1 -c 1 -d 1 "${script[@]}" \
    "http://127.0.0.1:${port[$server]}/"
  record "$mode" "$case" 'time per request' milliseconds \
    "$(awk '/^Requests\/sec:/ { print 1e3 / $2 }' "$work/load")"
}

# Sends 16 requests on a connection, and reads what the server says of it.
count_segments() {
  local console=$work/$mode.console left ask='' client
  local before
  before=$(stat -c %s "$console")
  for ((left = batch; left > 0; left--)); do
    ask+=$REQUEST
  done
  exec {client}<>"/dev/tcp/127.0.0.1/${port[$server]}"
  for ((left = 16; left > 0; left -= batch)); do
    printf %s "$ask" >&"$client"
    read_responses "$batch" || fail "$mode: no response"
  done
  exec {client}>&-
  wait_until segments_are_told
  record "$mode" "$case" 'data segments for 16 responses' segments "$told"
}

read_responses() { # number
  local left line
  for ((left = $1; left > 0; left--)); do
    until [ "${line-}" = $'\r' ]; do
      IFS= read -r -t 5 -u "$client" line || return
    done
    LC_ALL=C read -r -t 5 -N 13 -u "$client" line || return
  done
}

# Reads on in the console from where it ended before. Sets $told.
segments_are_told() {
  told=$(tail -c "+$((before + 1))" "$console" |
    sed -n 's/^closed after 16 responses in \([0-9]*\) .*/\1/p')
  [ -n "$told" ]
}
