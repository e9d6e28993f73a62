# What a request costs each server, in CPU time.

measure_cpu() {
  local servers=(02_blocking_loop 03_select 04_epoll_lt 05_epoll_et deferred) server
  servers+=(nginx nginx-deferred)
  for server in "${servers[@]}"; do
    start_server "$server"
    ask "$server" 500 # the first ones pay for what is only done once
  done
  # The tutorial's is started anew each time, and ended at once. ab leaves some
  # connections that it never asked on. From then on that server, which forgets
  # to look for a client's close, turns without end: it would look dearer with
  # every load, and take the core from those that are measured after it.
  servers+=(python)
  while next_round "$ROUNDS" "${#servers[@]}"; do
    for server in "${servers[@]}"; do
      step "$server, $REQUESTS requests"
      [ "$server" != python ] || start_server python
      record_cpu_time "$server" '50 at once' "$REQUESTS"
      [ "$server" != python ] || stop_server python
    done
  done
  for server in "${servers[@]}"; do
    [ "$server" = python ] || stop_server "$server"
  done
}
