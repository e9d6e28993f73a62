#!/usr/bin/env bats
# The lab and its walks, as a user has them: in a terminal, which is a tmux's
# here, with keys pressed and pictures taken.

load common

NOTES=$PROJECT/NOTES.md
export DEADLINE=30
export LC_ALL=C.UTF-8

setup() {
  export TMPDIR=$BATS_TEST_TMPDIR/t # where a lab has its folder
  export PATH=$BATS_TEST_TMPDIR/bin:$PATH
  mkdir -p "$TMPDIR" "$BATS_TEST_TMPDIR/bin"
  outer=$BATS_TEST_TMPDIR/outer
  unset TMUX
  # A network for the test, so that 8080 is its own where a lab gets none.
  network=()
  ! unshare -rn true 2>/dev/null ||
    network=(unshare -rn sh -c 'ip link set lo up; exec "$@"' -)
}

teardown() {
  end_programs
  outer kill-server 2>/dev/null || true
  left | xargs -r kill -KILL
  rm -rf "$TMPDIR"
}

outer() {
  tmux -S "$outer" -f /dev/null "$@" 3>&-
}

# Opens a terminal, and types a command into it, in the project's folder. The
# lab does not see that the terminal is tmux's own, unless $TMUX_TOO is set.
open() { # columns rows command
  local inner='exec env -u TMUX -u TMUX_PANE TERM=xterm'
  [ -z "${TMUX_TOO-}" ] || inner='exec env'
  outer+=. # another socket, for an outer tmux that was killed may still be there
  "${network[@]}" tmux -S "$outer" -f /dev/null \
    new-session -d -x "$1" -y "$2" -c "$PROJECT" \
    "$inner PS1='outside\$ ' bash --norc" 3>&-
  awaits 'outside\$$'
  outer send-keys "clear; $3" Enter
}

press() { # key...
  outer send-keys "$@"
}

shows() { # pattern
  outer capture-pane -p | grep -qE "$1"
}

# Waits until the picture shows something; else fails with the picture.
awaits() { # pattern
  wait_until shows "$1" || {
    outer capture-pane -p
    return 1
  }
}

inner() {
  tmux -S "$(echo "$TMPDIR"/tmp.*/socket)" "$@"
}

# Prints all that a terminal of the lab shows.
terminal() { # number
  inner capture-pane -t "%$(($1 - 1))" -p -J -S -
}

terminal_shows() { # number pattern
  terminal "$1" | grep -qE "$2"
}

# Types a command into a terminal of the lab, as the class does: Alt-NUMBER.
class_types() { # number command
  wait_until terminal_shows "$1" '\$ ?$'
  press "M-$1" "$2" Enter
}

# Goes back to the strip, as the class does: Alt-0.
go_back() {
  press M-0
  wait_until is_back
}

is_back() {
  [ "$(inner display -p '#{pane_id}')" = %4 ]
}

left() {
  grep -lsz "^LAB=$TMPDIR" /proc/[0-9]*/environ | cut -d / -f 3
}

# Fails unless the lab is over, the terminal is the shell's again, and neither
# a program nor a file is left.
nothing_is_left() {
  ! outer has-session 2>/dev/null || awaits 'outside\$$'
  wait_until eval '[ -z "$(left)$(ls "$TMPDIR")" ]' || {
    left | xargs -r ps -o pid=,args= -p
    return 1
  }
}

# --- Walks -----------------------------------------------------------------

strip() {
  inner capture-pane -t %4 -p
}

# True when the strip is another one, drawn to its end, and waits for a key.
has_gone_on() {
  now=$(strip) && [ "$now" != "$before" ] && ! grep -q ' …$' <<<"$now" &&
    grep -qE '^(\[[0-9]+/|Enter: more)' <<<"$now" && nap 0.05 &&
    [ "$(strip)" = "$now" ]
}

# Plays a walk to its end, by Enter alone. Adds what the strip says to $said.
play_to_the_end() {
  local before now
  awaits '^\[1/'
  now=$(strip)
  until grep -q 'the end:' <<<"$now"; do
    before=$now
    said+=$now$'\n\n'
    press Enter
    { wait_until has_gone_on && ! grep 'does not show' <<<"$now"; } || {
      outer capture-pane -p
      return 1
    }
  done
  said+=$now
}

# Prints a text's words, a line each; of the strip's pictures, the text's alone.
words_of() { # text
  sed -E '/^\[[0-9]+\//,/^ *$/d; /^Enter: more/d; /^<.*>$/d
    s/\]\([^) ]*\)//g' <<<"$1" | tr -cs '[:alnum:]' '\n' | grep .
}

# bats file_tags=waits
@test "each walk, by Enter alone, shows all of the text" {
  for stage in 01_blocking 02_blocking_loop 03_select 04_epoll_lt 05_epoll_et \
    keep_alive 06_tcp_options; do
    said=
    open 80 24 "make walk-$stage"
    play_to_the_end
    # The walk has said all that the text of its walkthrough says.
    heading=$(sed -nE "/^### Walkthrough of ($stage|${stage%%_*})\$/=" "$NOTES")
    text=$("$PROJECT/tests/notes/play" --blocks "$NOTES" | grep -P \
      "^\\d+\t$heading\t0\ttext\t" | cut -f 5-)
    diff <(words_of "$text") <(words_of "$said")
    press Enter
    nothing_is_left
    outer kill-server
  done
}

@test "Enter pressed too quickly does not get ahead of the terminals" {
  open 80 24 'make walk-01_blocking'
  awaits '^\[1/'
  press -N 40 Enter
  awaits 'the end:'
  wait_until terminal_shows 2 '^curl: \(7\) Failed to connect' # the last command
  same "$(terminal 2 | grep -c '^Hello, world!')" 2
}

@test "a walk works inside tmux, and without a network of its own" {
  local said=
  printf '#!/bin/sh\nexit 1\n' >"$BATS_TEST_TMPDIR/bin/unshare"
  TMUX_TOO=1 open 80 24 'make walk-01_blocking'
  chmod +x "$BATS_TEST_TMPDIR/bin/unshare"
  play_to_the_end
  press q
  nothing_is_left
}

@test "s skips a step" {
  open 80 24 'make walk-01_blocking'
  awaits '^\[1/'
  press s
  awaits '^\[2/'
  press Enter
  wait_until terminal_shows 2 '^2\$ [a-z]'
  same "$(terminal 1 | tr -d ' \n')" '1$'
}

@test "b begins again, with fresh terminals in a fresh network" {
  open 80 24 'make walk-01_blocking'
  play_to_the_end
  press b
  awaits '^Back to the beginning'
  press n # b may have been meant for one step
  awaits 'the end:'
  press b b
  awaits '^\[1/'
  wait_until terminal_shows 1 '^1\$ ?$'
  same "$(terminal 1 | tr -d ' \n')" '1$'
  ((${#network[@]} == 0)) || {
    class_types 3 'ss -Htan | wc -l'
    wait_until terminal_shows 3 '^0'
  }
  go_back
  press Enter
  wait_until terminal_shows 1 '^listening on '
  press q
  nothing_is_left
}

@test "the class may type into the terminals, and is told what that changes" {
  DEADLINE=2 open 80 24 'make walk-01_blocking'
  awaits '^\[1/'
  press Enter
  wait_until terminal_shows 1 '^listening on '
  class_types 3 'curl -s -m 5 127.0.0.1:8080'
  wait_until terminal_shows 3 '^Hello, world!'
  class_types 4 'exit' # a shell that was ended begins again
  wait_until terminal_shows 4 '^exit'
  wait_until terminal_shows 4 '\$ ?$'
  server=$(inner display -p '#{pid}')
  kill -STOP "$server" # as a slow machine, it gets all of these keys at once
  press M-4 'echo again: $?' Enter M-0
  kill -CONT "$server"
  wait_until terminal_shows 4 '^again: 0'
  wait_until is_back
  # The server has answered, and ended: nobody answers the next step.
  press Enter
  awaits '^Terminal 2 does not show what NOTES.md shows'
  awaits '^\[3/'
}

# --- Ends ------------------------------------------------------------------

# bats file_tags=waits_too
@test "nothing is left, however a walk ends" {
  for way in q C-c waiting lab client server terminal; do
    echo "its end: $way"
    # A walk, with programs that still run, one of which heeds no hangup.
    open 80 24 'make walk-02_blocking_loop'
    awaits '^\[1/'
    press Enter
    wait_until terminal_shows 1 '^listening on '
    class_types 3 'nohup setsid sleep 1000 > /dev/null 2>&1 &'
    class_types 4 'nc 127.0.0.1 8080'
    go_back
    wait_until eval 'ps -o args= $(left) | grep -q "^sleep 1000"'
    case $way in
    q | C-c) press "$way" ;;
    waiting)
      press s s Enter Enter # no answer comes to the last
      awaits ' …$'
      press C-c
      ;;
    lab) pkill -s "$(outer display -p '#{pane_pid}')" -o -f tests/lab/lab ;;
    client) pkill -KILL -s "$(outer display -p '#{pane_pid}')" -x 'tmux.*' ;;
    server) kill -KILL "$(inner display -p '#{pid}')" ;;
    terminal) outer kill-session ;;
    esac
    nothing_is_left
    outer kill-server 2>/dev/null || true
  done
}

# --- The lab ---------------------------------------------------------------

@test "the lab opens four terminals with a network of their own" {
  TMUX_TOO=1 open 120 40 'make lab'
  for number in 1 2 3 4; do
    awaits " terminal $number "
    class_types "$number" "nc -l 127.0.0.1 808$number"
  done
  if ((${#network[@]} > 0)); then
    same "$(ss -Hltn 'sport >= 8081 and sport <= 8084' | wc -l)" 0
  fi
  press M-q
  nothing_is_left
}

@test "a terminal that is too small is refused in a line" {
  open 79 24 'make walk-01_blocking'
  awaits '^walk-01_blocking: the terminal is 79 by 24, and has to be 80 by 24'
  press 'clear; make lab </dev/null' Enter
  awaits '^lab: needs a terminal'
  nothing_is_left
}

@test "a taken port is named before a walk begins" {
  printf '#!/bin/sh\nexit 1\n' >"$BATS_TEST_TMPDIR/bin/unshare"
  open 80 24 "nc -l 127.0.0.1 8080 & until ss -Hltn 'sport = 8080' | grep -q .; \
do :; done; make walk-01_blocking"
  chmod +x "$BATS_TEST_TMPDIR/bin/unshare"
  awaits '^walk-01_blocking: port 8080 is taken'
  nothing_is_left
}

# --- Dawdlers, and what a server costs -------------------------------------

@test "ten dawdlers hold a port until Ctrl-C, or say that nobody listens" {
  run -1 "$PROJECT/tests/lab/dawdlers" 1
  same "$output" 'dawdlers: nobody listens on port 1'
  start 03_select
  network=() # the server has none of its own
  open 80 24 "make dawdlers PORT=$port"
  wait_until has_sockets established 10
  wait_until has_descriptors $((without_clients + 10))
  press C-c
  wait_until has_sockets established 0
  wait_until has_descriptors "$without_clients"
}

@test "make watch shows, every second, what a server has open and what it costs" {
  start 02_blocking_loop
  network=() # the server has none of its own
  open 80 24 "make watch PORT=$port"
  awaits "^02_blocking_loop, process $pid, state S"
  awaits "^[0-9.]+ s of CPU time, $without_clients descriptors"
  awaits '^LISTEN +1$'
  connect
  awaits '^ESTAB +1$'
  awaits "^[0-9.]+ s of CPU time, $((without_clients + 1)) descriptors"
  connect
  awaits '^ESTAB +2$'
  awaits '^in backlog +1$'
  kill "$pid"
  awaits '^no server of yours'
  press C-c
  awaits 'outside\$$'
}
