# What an idle connection costs a server, in resident memory.

measure_memory() { # server
  local none held before
  start_server "$1"
  none=$(resident "$1")
  hold_idle "$1" 0 "$IDLE"
  held=$(resident "$1")
  before=$(nanoseconds "$1")
  sleep 1 # a second of nothing, which should cost nothing
  record "$1" 'none idle' 'resident memory' MiB "$(in_mib "$none")"
  record "$1" "$IDLE idle" 'resident memory' MiB "$(in_mib "$held")"
  record "$1" 'each idle' 'resident memory' bytes $(((held - none) * 1024 / IDLE))
  record "$1" "$IDLE idle" 'CPU time' 'us a second' \
    $((($(nanoseconds "$1") - before) / 1000))
  stop_server "$1"
}

in_mib() { # kilobytes
  awk "BEGIN { print $1 / 1024 }"
}
