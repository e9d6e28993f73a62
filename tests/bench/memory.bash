# What an idle connection costs a server, in resident memory.

measure_memory() {
  local servers=(04_epoll_lt 05_epoll_et nginx) server none held before
  while next_round "$MEMORY_ROUNDS" "${#servers[@]}"; do
    for server in "${servers[@]}"; do
      step "$server, $IDLE idle connections"
      start_server "$server"
      none=$(resident "$server")
      hold_idle "$server" 0 "$IDLE"
      held=$(resident "$server")
      before=$(nanoseconds "$server")
      sleep 1 # a second of nothing, which should cost nothing
      record "$server" 'none idle' 'resident memory' MB "$(in_mb "$none")"
      record "$server" "$IDLE idle" 'resident memory' MB "$(in_mb "$held")"
      record "$server" 'each idle' 'resident memory' bytes \
        $(((held - none) * 1024 / IDLE))
      record "$server" "$IDLE idle" 'CPU time' 'us a second' \
        $((($(nanoseconds "$server") - before) / 1000))
      stop_server "$server"
    done
  done
}

in_mb() { # kilobytes
  awk "BEGIN { print $1 / 1024 }"
}
