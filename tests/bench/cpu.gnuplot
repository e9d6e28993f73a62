# CPU time per request, by server: reads results.tsv, writes cpu.svg.

set title 'What one request costs a server: a connection for each, 50 at once'
set xlabel 'CPU time per request, microseconds'
set xrange [0:*]
set yrange [*:*] reverse
set offsets 0, graph 0.1, 0.3, 0.3
set style fill solid border lt -1
set ytics scale 0
set lmargin 19
set title offset -5

# The bar is the median, light for what the stages are compared with; the
# whisker reaches from the lowest to the highest.
results = "< awk -F '\t' -v OFS='\t' '$1 == \"cpu\" && /per request/ { " \
  . "ours = $2 ~ /^(0|def)/; sub(/python/, \"tutorial (Python)\", $2); " \
  . "print $2, $6, $7, $8, ours ? 11184810 : 15658734 }' results.tsv"
plot results using (0):0:(0):2:($0-0.35):($0+0.35):5:ytic(1) \
    with boxxyerror lc rgb variable, \
  '' using 3:0:($4-$3):(0) with vectors heads size screen 0.008,90 lw 2 \
    lc rgb 'black', \
  '' using 4:0:(sprintf('  %.1f', $2)) with labels left
