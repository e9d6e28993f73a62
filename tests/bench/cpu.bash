# What a request costs each server, in CPU time.

measure_cpu() { # server
  start_server "$1"
  # The first requests pay for what is only done once. The tutorial's server gets
  # none of them: ab leaves some connections that it never asked on. From then on
  # that server, which forgets to look for a client's close, turns without end, and
  # would look dearer.
  [ "$1" = python ] || ask "$1" 500
  record_cpu_time "$1" '50 at once' "$REQUESTS"
  stop_server "$1"
}
