# How what a terminal shows is compared with what NOTES.md shows. Sourced by play
# and by the lab.

# How wide a column is does not matter, nor a space at the end of a line: ss
# adapts the one, and an editor eats the other. On 64-bit ARM, epoll_wait is
# epoll_pwait, with two more arguments. Newer versions of strace print a comma only with
# the argument that follows.
squeeze() {
  sed -E 's/\bepoll_pwait\(/epoll_wait(/; s/, NULL, 8(\) += )/\1/
    s/ +/ /g; s/ +$//; $s/ *\.$/./; 1s/^, //; s/(\([0-9]+),(\.?)$/\1\2/'
}

# Sets $pattern to the regular expression of what NOTES.md shows.
set_pattern() { # text
  # $() would take the newlines at the end.
  pattern=$(squeeze <<<"$1." | sed -E 's/[][\\.^$*+?(){}|]/\\&/g
    s/^(\\\.){3}$/@@LINES@@/; s/(\\\.){3}/[^@@NEWLINE@@]*/g')
  pattern=${pattern%\\.}
  pattern=${pattern//@@LINES@@$'\n'/(.*$'\n')?}
  pattern=${pattern//@@NEWLINE@@/$'\n'}
  pattern=${pattern/%$'\n'/$'[ \n]?'} # what is last may have no newline
}
