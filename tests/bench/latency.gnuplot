# Time per request on a connection that stays open, by mode: reads results.tsv,
# writes latency.svg.

set ylabel 'milliseconds per request'
set yrange [0:*]
set xrange [-0.6:2.6]
set offsets 0, 0, graph 0.12, 0
set style fill solid 0.35 border lt -1
set boxwidth 0.6
set xtics scale 0

# The bar is the median; the whisker reaches from the lowest to the highest.
results(case) = "< grep '\t" . case . "\ttime per request\t' results.tsv" \
  . " | cut -f 2,6-8"

set multiplot layout 1,2 \
  title 'When TCP sends what 06_tcp_options wrote (each panel its own scale)'
do for [case in '"one at a time" "16 pipelined"'] {
  set title 'requests '.case
  plot results(case) using 0:2:xtic(1) with boxes lc rgb 'black', \
    '' using 0:3:(0):($4-$3) with vectors heads size screen 0.008,90 lw 2 \
      lc rgb 'black', \
    '' using 0:4:(sprintf('%.2g', $2)) with labels offset 0,0.8
  unset ylabel
}
unset multiplot
