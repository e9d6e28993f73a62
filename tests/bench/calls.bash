# Which system calls a request costs.

measure_calls() { # server
  local call number
  # What it takes to start and to stop is in both, and cancels out.
  count_calls "$1" 100 few
  count_calls "$1" $((100 + CALL_REQUESTS)) many
  awk -v requests="$CALL_REQUESTS" '
    $4 ~ /^[0-9]+$/ && $NF != "total" {
      number[$NF] += (FILENAME ~ /many$/ ? $4 : -$4) / requests
    }
    END {
      for (name in number) {
        if (number[name] >= 0.005) print number[name], name
        all += number[name]
        if (name !~ /^(select|pselect6|epoll_p?wait|rt_sigprocmask|write)$/)
          lean += number[name]
      }
      print all, "all"
      print lean, "without the waits and write"
    }' "$work/few" "$work/many" | while read -r number call; do
    record "$1" "$call" 'system calls per request' calls "$number"
  done
}

# Writes a server's calls for a number of requests to $work/FILE.
count_calls() { # name requests file
  rm -f "$work/$3"
  tracer="strace -D -c -f -o $work/$3" start_server "$1"
  ask "$1" "$2"
  stop_server "$1"
  wait_until grep -q ' total$' "$work/$3"
}
