# What a request costs while other clients only hold their connections.

measure_idle() { # server
  local levels=("${EPOLL_LEVELS[@]}") case before=0 opened left
  [ "$1" != 03_select ] || levels=("${SELECT_LEVELS[@]}")
  start_server "$1"
  ask "$1" 500
  opened=$SECONDS
  for case in "${levels[@]}"; do
    hold_idle "$1" "$before" "$case"
    record_cpu_time "$1" "$case" "$REQUESTS"
    # A server that has closed some would look quicker than it is.
    left=$(($(sockets "$1") - ${own_sockets[$1]}))
    ((left >= case)) || notes+=("idle: of $case connections, $1 had only $left\
 left at the end of a load, after $((SECONDS - opened)) s")
    before=$case
  done
  stop_server "$1"
}
