# Draws what `timeline` has collected, as SVG: for each stage a line with its
# name, a line for each of its clients, and what strace has printed.

# What took less than SHORT seconds was no sleep, or is too thin to be seen.
BEGIN {
  SHORT = 0.006
  LEFT = 108; WIDTH = 800; SCALE = 760; CELL = 18; ROW = 28; y = 8
}

function x(time) {
  return LEFT + (time - began) * SCALE
}

function text(at, below, words, class) {
  body = body sprintf("<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n",
    at, below, class, words)
}

function box(from, to, top, class) {
  if (to - from < 2) to = from + 2
  body = body sprintf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" " \
    "height=\"%d\" class=\"%s\"/>\n", from, top, to - from, CELL, class)
}

# A box with words in it, if they fit.
function label(from, to, top, class, words) {
  box(from, to, top, class)
  if (length(words) * 7 < to - from)
    text((from + to) / 2, top + 13, words, "middle")
}

function draw_stage(    i, j, n, fd, bottom, number) {
  if (stage == "") return
  heading["02"] = "Boxes: where the server is asleep."
  heading["03"] = sprintf("Boxes: asleep in select, and the descriptors " \
    "handed to it. In all, %d calls were handed %d.", selects, handed)
  heading["05"] = sprintf("Boxes: asleep in epoll_wait, handed none (%d " \
    "calls). Marks: epoll_ctl, handed one (%d calls).", epoll_waits, told)
  words["accept"] = "in accept"
  words["recvfrom"] = "in recv, for the slow client"
  words["epoll_wait"] = "in epoll_wait"
  number = substr(stage, 1, 2)
  y += 20
  text(LEFT, y - 6, heading[number], "plain")
  if (told) y += 20
  bottom = y + (cells - 1) * CELL
  text(LEFT - 8, bottom + 13, number " server", "end bold")
  for (i = 1; i <= waits; i++) {
    if (!to[i]) to[i] = ended
    if (to[i] - from[i] < SHORT) continue
    n = split(fds[i], fd, " ")
    for (j = 1; j <= n; j++)
      label(x(from[i]), x(to[i]), bottom - (j - 1) * CELL, "asleep", fd[j])
    if (!n)
      label(x(from[i]), x(to[i]), bottom,
        by[i] == "recvfrom" ? "held" : "asleep", words[by[i]])
  }
  for (i = 1; i <= told; i++) {
    body = body sprintf("<path d=\"M%.1f %.1fv-8\"/>\n", x(told_at[i]), bottom)
    text(x(told_at[i]), bottom - 11, "ADD " told_fd[i],
      i == 1 ? "plain" : "middle")
  }
  y = bottom + ROW
  for (i = 1; i <= clients; i++) {
    j = y + (row[i] - 1) * ROW
    text(LEFT - 8, j + 13, what[i], "end")
    if (asked[i] - connected[i] > 0.01)
      label(x(connected[i]), x(asked[i]), j, "dawdles",
        "has sent half a request")
    box(x(asked[i]), x(answered[i]), j, "waits")
    text(x(answered[i]) + 6, j + 13, sprintf("answered in %.1f ms",
      (answered[i] - asked[i]) * 1000), "plain")
  }
  y += clients * ROW + 8
}

$1 == "stage" {
  draw_stage()
  stage = $2
  clients = waits = told = handed = selects = epoll_waits = 0
  cells = 1 # one above the other, in the tallest box
  next
}
$1 == "client" {
  row[++clients] = $2
  connected[clients] = $3
  asked[clients] = $4
  answered[clients] = $5
  what[clients] = $6 " " $7
  next
}
{ sub(/epoll_pwait\(/, "epoll_wait(") } # what 64-bit ARM calls it
/ listen\(/ { began = $1 }
/ epoll_ctl\(/ {
  split($0, word, ", ")
  told_at[++told] = $1
  told_fd[told] = word[3]
}
/ (accept|recvfrom|pselect6|epoll_wait)\(/ {
  waits++
  from[waits] = $1
  to[waits] = $NF ~ /^</ ? $1 + substr($NF, 2) : 0
  by[waits] = $2
  sub(/\(.*/, "", by[waits])
  fds[waits] = ""
  epoll_waits += by[waits] == "epoll_wait"
  if (by[waits] == "pselect6") { # (1024, [3 4], [5], NULL
    selects++
    split($0, word, ", NULL")
    fds[waits] = word[1]
    sub(/[^[]*/, "", fds[waits])
    gsub(/[^0-9]+/, " ", fds[waits])
    n = split(fds[waits], word, " ")
    handed += n
    if (n > cells && to[waits] - from[waits] >= SHORT) cells = n
  }
}
/ \+\+\+ killed/ { ended = $1 }

END {
  draw_stage()
  for (i = 0; i <= 8; i++) {
    at = LEFT + i / 10 * SCALE
    lines = lines sprintf("<path d=\"M%.1f 8V%d\" class=\"grid\"/>\n", at, y)
    text(at, y + 16, i / 10, "middle")
  }
  text(LEFT - 8, y + 16, "seconds", "end")
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" " \
    "viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n" \
    "<title></title>\n<desc></desc>\n<style>\ntext { font: 13px sans-serif }\n" \
    ".middle { text-anchor: middle }\n.end { text-anchor: end }\n" \
    ".bold { font-weight: bold }\nrect, path { stroke: black; fill: none }\n" \
    "path.grid { stroke: #ddd }\nrect.asleep { fill: #d5d5d5 }\n" \
    "rect.held { fill: #e8a33d }\nrect.dawdles { stroke-dasharray: 3 3; " \
    "fill: white }\nrect.waits { fill: black }\n</style>\n" \
    "<rect width=\"100%%\" height=\"100%%\" style=\"fill: white; " \
    "stroke: none\"/>\n%s%s</svg>\n", WIDTH, y + 26, WIDTH, y + 26, lines, body
}
