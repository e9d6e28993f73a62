# What a request costs each server, in CPU time.

measure_cpu() {
  local servers=(02_blocking_loop 03_select 04_epoll_lt 05_epoll_et deferred) server
  servers+=(nginx nginx-deferred python)
  while next_round "$ROUNDS" "${#servers[@]}"; do
    for server in "${servers[@]}"; do
      step "$server, $REQUESTS requests"
      start_server "$server"
      # The first requests pay for what is only done once. The tutorial's server gets
      # none of them: ab leaves some connections that it never asked on. From then
      # on that server, which forgets to look for a client's close, turns without
      # end, and would look dearer.
      [ "$server" = python ] || ask "$server" 500
      record_cpu_time "$server" '50 at once' "$REQUESTS"
      stop_server "$server"
    done
  done
}
