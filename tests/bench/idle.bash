# What a request costs while other clients only hold their connections.

measure_idle() { # server
  local levels=("${EPOLL_LEVELS[@]}") case before=0
  [ "$1" != 03_select ] || levels=("${SELECT_LEVELS[@]}")
  start_server "$1"
  ask "$1" 500
  for case in "${levels[@]}"; do
    hold_idle "$1" "$before" "$case"
    record_cpu_time "$1" "$case" "$REQUESTS"
    before=$case
  done
  stop_server "$1"
}
