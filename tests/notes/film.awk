# Draws what `film` has collected, as SVG: 04 on the left, 05 on the right. As a
# film, with a picture for each step; or, with still=1, as a table, with a row for
# each. Socket 0 is the listening one, 1 to 3 are the clients.

BEGIN {
  split("silent client,half a request,request of 4 KB", who, ",")
  who[0] = "listening"
  # What to show of a step, and where: x, y, and how wide the mark of a change is.
  places = still ? "call 0 0 0,members 210 0 64,list 279 0 56" : \
    "call 0 84 446,list 100 278 346,note 0 318 0,count 0 356 446"
  for (i = 0; i < 4; i++)
    places = places (still ? ",bytes" i " " 340 + 25 * i " 0 " (i < 3 ? 22 : 42) : \
      sprintf(",name%d 0 %d 195,wants%d 200 %d 105,bytes%d 310 %d 136",
        i, y = 152 + 28 * i, i, y, i, y))
  heads = still ? "0 68 call,210 68 interest,279 68 ready,285 45 waiting clients " \
    "and bytes" : "0 122 socket,200 122 interest list,310 122 waiting,0 278 ready list"
}

$1 == "stage" { side++; stage[side] = $2; s = 0 }
$1 == "step" {
  at = side SUBSEP (last[side] = ++s)
  cell[at, "call"] = substr($0, 6)
  if (!/ returns /) next
  gsub(/[^0-9]+/, " ")
  returned[at] = $0
  if (still) gsub(/( [A-Z]+)+/, "", cell[at, "call"])
}
$1 == "interest" { # descriptor "events:" what, in hexadecimal
  wants[at, $2] = ($4 ~ /[13579bdf]$/ ? "IN" : "") ($4 ~ /[4-7c-f]$/ ? " OUT" : "") \
    ((edge[side] = length($4) == 8) ? " ET" : "")
}
$1 == "LISTEN" || $1 == "ESTAB" {
  if (!((side, $5) in socket)) socket[side, $5] = $1 == "ESTAB" ? ++clients[side] : 0
  i = socket[side, $5]
  cell[at, "bytes" i] = $2 (still || i ? "" : $2 == 1 ? " client" : " clients")
  if (match($0, /fd=[0-9]+/))
    fd[at, i] = number[side, i] = substr($0, RSTART + 3, RLENGTH - 3)
}

function has(list, one) { return index(" " list " ", " " one " ") > 0 }
function text(x, y, words, class) {
  printf "<text x='%d' y='%d' class='%s'>%s</text>\n", x, y, class, words
}

# Fills in what a step shows beside the call and the bytes.
function fill(    call, i, f, n, one, list, note) {
  call = cell[at, "call"]
  if (returned[at]) { waits[side]++; seen[side] = returned[at] }
  # The ready list, inferred as the picture says.
  for (i = s + 1; i < last[side] && !returned[side, i]; i++);
  n = split((edge[side] ? "" : seen[side]) " " returned[side, i], one, " ")
  for (i = 1; i <= n && call !~ /asleep/; i++)
    if ((at, one[i]) in wants && !has(list, one[i])) list = list one[i] " "
  for (i = 0; i < 4; i++) {
    f = fd[at, i]
    n = cell[at, "bytes" i]
    cell[at, "name" i] = n != "" ? (f ? f : "–") ": " who[i] : \
      s > 1 ? number[side, i] ": closed" : ""
    if (!wants[at, f]) continue
    cell[at, "wants" i] = wants[at, f]
    cell[at, "members"] = cell[at, "members"] f " "
    if (n + 0 > 0) note = n (i ? " bytes" : "") " waiting in " f (has(list, f) ? \
      ": the next wait returns " f "." : ", but no wait would return " f ": go on!")
  }
  if (call ~ /asleep/) note = "Nothing is ready: the server sleeps."
  if (call ~ /EAGAIN/) note = "EAGAIN: nothing is left. What comes next is a change."
  cell[at, "note"] = note
  cell[at, "list"] = list || still ? list : "empty"
  large[side] += f && has(returned[at], f)
  cell[at, "count"] = "waits returned: " waits[side] + 0 ", for the 4 KB: " large[side]
}

# Draws a step of a side, and marks what differs from the step before.
function draw(before, x, y,    n, place, p, now) {
  for (n = split(places, place, ","); n > 0; n--) {
    split(place[n], p, " ")
    now = cell[side, s, p[1]]
    if (p[4] && (now != cell[side, before, p[1]] || p[1] == "call" && s != before))
      printf "<path class='new' d='M%d %dh%dv21h-%dz'/>\n", x + p[2] - 4,
        y + p[3] - 16, p[4], p[4]
    if (now != "") text(x + p[2], y + p[3], now, now ~ /^epoll_w/ ? "call wait" : p[1])
    if (!still && now && p[1] ~ /bytes[1-3]/) printf "<path d='M%d %dh%dv12h-%dz'/>\n",
      x + p[2] + 45, y + p[3] - 11, now / 50, now / 50
  }
}

END {
  total = last[1] > last[2] ? last[1] : last[2]
  height = still ? 23 * total + 140 : 430
  film = ".title, .call, .list, .count { font: bold 19px sans-serif }\n.step { " \
    "visibility: hidden; animation: show " total * 1.5 "s step-end infinite }\n" \
    "@keyframes show { 0% { visibility: visible } " 100 / total "% { visibility: " \
    "hidden } }\n@media print, (prefers-reduced-motion) {\n.step { animation: none }" \
    "\n.told { visibility: visible }\n}\n"
  printf "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 960 %d' width='960' " \
    "height='%d'>\n<title></title>\n<desc></desc>\n<style>\ntext { font: %dpx " \
    "sans-serif }\n.wait, .list, .title { font-weight: bold }\n.head { fill: #555 }\n" \
    "path { fill: #37699a }\n.new { fill: #ffe27a }\n%s</style>\n<path style='fill: " \
    "white' d='M0 0h960v%dH0z'/>\n", height, height, still ? 15 : 16,
    still ? "" : film, height
  text(16, height - 32, "The kernel does not show the ready list. It is inferred: a " \
    "socket is on it if the next epoll_wait returned it,", "head")
  text(16, height - 11, "and in 04 also if the last one did, because it stays until " \
    "a wait finds it not ready (ep_send_events).", "head")
  for (side = 1; side <= 2; side++) {
    x = left[side] = still ? 460 * side - 416 : 484 * side - 468
    text(x, still ? 22 : 40, stage[side] ": " (edge[side] ? "edge" : "level") \
      "-triggered", "title")
    for (n = split(heads, head, ","); n > 0; n--) {
      split(head[n], p, " ")
      text(x + p[1], p[2], substr(head[n], length(p[1] p[2]) + 3), "head")
    }
    for (i = 0; still && i < 4; i++) text(x + 340 + 25 * i, 68, number[side, i], "head")
    for (s = 1; (at = side SUBSEP s) && s <= last[side]; s++) fill()
  }
  # The telling step: both make the same call, but one will not be told again.
  for (told = total; told > 1 && (cell[1, told, "call"] != cell[2, told, "call"] ||
    cell[1, told, "note"] == cell[2, told, "note"]); told--);
  for (step = 1; step <= total; step++) {
    y = still ? 68 + 23 * step : 0
    printf still ? "<g>\n" : "<g class='step%s' style='animation-delay: %.1fs'>\n",
      step == told ? " told" : "", (step - 1) * 1.5
    text(still ? 10 : 840, still ? y : 40, (still ? "" : "step ") step, "")
    for (side = 1; side <= 2; side++) {
      s = step < last[side] ? step : last[side]
      draw(step > last[side] || s == 1 ? s : s - 1, left[side], y)
    }
    print "</g>"
  }
  print "</svg>"
}
