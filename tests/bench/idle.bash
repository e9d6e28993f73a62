# What a request costs while other clients only hold their connections.

measure_idle() {
  local server case levels before opened left
  while next_round "$ROUNDS" \
    $((${#SELECT_LEVELS[@]} + 2 * ${#EPOLL_LEVELS[@]})); do
    for server in 03_select 04_epoll_lt 05_epoll_et; do
      levels=("${EPOLL_LEVELS[@]}")
      [ "$server" != 03_select ] || levels=("${SELECT_LEVELS[@]}")
      start_server "$server"
      ask "$server" 500
      before=0 opened=$SECONDS
      for case in "${levels[@]}"; do
        step "$server, $case idle connections"
        hold_idle "$server" "$before" "$case"
        record_cpu_time "$server" "$case" "$REQUESTS"
        # A server that has closed some would look quicker than it is.
        left=$(($(sockets "$server") - ${own_sockets[$server]}))
        ((left >= case)) || notes+=("idle: of $case connections, $server had\
 only $left left at the end of a load, after $((SECONDS - opened)) s")
        before=$case
      done
      stop_server "$server"
    done
  done
}
