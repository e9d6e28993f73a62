# When TCP sends what 06 wrote: how long a request takes on a connection that
# stays open, and in how many segments its response leaves.

measure_latency() { # mode
  local case option=() script told
  [ "$1" = plain ] || option=("--$1")
  for case in 'one at a time' '16 pipelined'; do
    script=()
    [ "$case" = 'one at a time' ] || script=(-s "$bench/pipeline.lua")
    console=$work/console start_server 06_tcp_options "${option[@]}"
    # With one client, a request's time is that between two responses. When it
    # leaves, the server says in how many segments they left.
    run_load wrk -t 1 -c 1 -d 1 "${script[@]}" \
      "http://127.0.0.1:${port[06_tcp_options]}/"
    record "$1" "$case" 'time per request' milliseconds \
      "$(awk '/^Requests\/sec:/ { print 1e3 / $2 }' "$work/load")"
    wait_until segments_are_told
    record "$1" "$case" 'data segments for 16 responses' segments "$told"
    stop_server 06_tcp_options
  done
}

# Sets $told. (wrk's first connection asks nothing.)
segments_are_told() {
  told=$(awk '/^closed after [1-9]/ { print 16 * $6 / $3 }' "$work/console")
  [ -n "$told" ]
}
