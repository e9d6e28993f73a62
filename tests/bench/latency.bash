# When TCP sends what 06 wrote: how long a request takes on a connection that
# stays open, and in how many segments its response leaves.

MODES=(plain cork nodelay)
declare -A OPTIONS=([plain]='' [cork]=--cork [nodelay]=--nodelay)

measure_latency() {
  local mode server case batch script before told
  for mode in "${MODES[@]}"; do
    # shellcheck disable=SC2086 # one option or none
    console=$work/$mode.console start_server "06_tcp_options--$mode" ${OPTIONS[$mode]}
  done
  while next_round "$ROUNDS" 6; do
    for batch in 1 16; do
      for mode in "${MODES[@]}"; do
        server=06_tcp_options--$mode case='one at a time' script=()
        [ $batch = 1 ] || case='16 pipelined' script=(-s "$bench/pipeline.lua")
        step "$mode, $case"
        before=$(stat -c %s "$work/$mode.console")
        # With one client, a request's time is that between two responses. When it
        # leaves, the server says in how many segments they left.
        run_load wrk -t 1 -c 1 -d 1 "${script[@]}" \
          "http://127.0.0.1:${port[$server]}/"
        record "$mode" "$case" 'time per request' milliseconds \
          "$(awk '/^Requests\/sec:/ { print 1e3 / $2 }' "$work/load")"
        wait_until segments_are_told
        record "$mode" "$case" 'data segments for 16 responses' segments "$told"
      done
    done
  done
  for mode in "${MODES[@]}"; do
    stop_server "06_tcp_options--$mode"
  done
}

# Reads on in the console from where it ended before. Sets $told. (wrk's first
# connection asks nothing.)
segments_are_told() {
  told=$(tail -c "+$((before + 1))" "$work/$mode.console" |
    awk '/^closed after [1-9]/ { print 16 * $6 / $3 }')
  [ -n "$told" ]
}
