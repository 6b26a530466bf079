# The plot of tests/bench/run, from the summary that table.awk writes: an SVG for light and dark pages. Left, requests/s of
# ours (filled) and the limit (hollow) by layer, with the ratio and the 99th percentile; right, one session and its clients.

BEGIN {
    FS = "\t"
    left = 190; width = 330; low = log(500); high = log(100000); row_height = 22; top = 62
    x0 = 690; x1 = 880; y1 = 340
}
$1 == "direct" || $1 == "nginx" || ($1 == "cgi" && $3 == "rate") {
    name[++rows] = $2; ours[rows] = $4; limit[rows] = $5; ratio[rows] = $6; slow[rows] = $7; layer[rows] = $1
}
$1 == "contention" {
    split($2, words, ": ")
    mode = words[1] ~ /exclusive/ ? "ours" : "optimistic"
    add(mode, words[2], $4); if ($5 != "") add("limit", words[2], $5)
}
function add(series, clients, rate) {
    points[series, ++count[series]] = clients; rates[series, count[series]] = rate
    if (rate > most) most = rate
}
function text(x, y, class, what) { printf "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, what }
function rule(a, b, c, d) { printf "<path class=\"grid\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", a, b, c, d }
function place(rate) { return left + width * (log(rate) - low) / (high - low) }
function thousands(n) { return n >= 1000 ? n / 1000 "k" : n }
function across(clients) { return x0 + (x1 - x0) * log(clients) / log(32) }
function up(rate) { return y1 - (y1 - top) * rate / scale }
function curve(series, label, shift,  i, d) {
    if (!count[series]) return
    for (i = 1; i <= count[series]; i++)
        d = d sprintf("%s%.1f %.1f", i == 1 ? "M" : "L", across(points[series, i]), up(rates[series, i]))
    printf "<path class=\"line %s\" d=\"%s\"/>\n", series, d
    for (i = 1; i <= count[series]; i++)
        printf "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", series, across(points[series, i]), up(rates[series, i])
    text(x0 + shift + 9, y1 + 54, "", label)
    printf "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", series, x0 + shift, y1 + 50
}

END {
    height = top + rows * row_height + 46
    if (height < y1 + 70) height = y1 + 70
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 920 %d\" role=\"img\" aria-label=\"Requests per second by layer, and of one session by number of clients\">\n", height
    print "<style>"
    print "text{font:12px system-ui,sans-serif;fill:#24292f}.head{font-weight:600}.dim{fill:#6e7781}.end{text-anchor:end}.mid{text-anchor:middle}"
    print ".page{fill:#fff}.grid{stroke:#d0d7de;fill:none}.span{stroke:#8c959f;stroke-width:2}.line{fill:none;stroke-width:2}"
    print "circle.ours{fill:#0969da}circle.limit{fill:#fff;stroke:#57606a;stroke-width:1.5}circle.optimistic{fill:#bc4c00}"
    print ".line.ours{stroke:#0969da}.line.limit{stroke:#57606a;stroke-dasharray:4 3}.line.optimistic{stroke:#bc4c00}"
    print "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8d96a0}.page{fill:#0d1117}.grid{stroke:#30363d}.span{stroke:#6e7681}"
    print "circle.ours{fill:#58a6ff}circle.limit{fill:#0d1117;stroke:#9198a1}circle.optimistic{fill:#f0883e}"
    print ".line.ours{stroke:#58a6ff}.line.limit{stroke:#9198a1}.line.optimistic{stroke:#f0883e}}"
    print "</style>"
    printf "<rect class=\"page\" width=\"920\" height=\"%d\" rx=\"6\"/>\n", height
    text(16, 26, "head", "Requests/s by layer, 16 clients (CGI: one)")
    text(left + width + 50, 50, "dim end", "ratio"); text(left + width + 112, 50, "dim end", "p99")
    bottom = top + rows * row_height
    split("500 1000 2000 5000 10000 20000 50000 100000", ticks, " ")
    for (i = 1; i <= 8; i++) {
        rule(place(ticks[i]), top, place(ticks[i]), bottom)
        text(place(ticks[i]), bottom + 16, "dim mid", thousands(ticks[i]))
    }
    for (i = 1; i <= rows; i++) {
        y = top + (i - 0.5) * row_height
        if (i > 1 && layer[i] != layer[i - 1]) rule(16, y - row_height / 2, left + width + 112, y - row_height / 2)
        text(left - 12, y + 4, "end", name[i])
        printf "<path class=\"span\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", place(ours[i]), y, place(limit[i]), y
        printf "<circle class=\"limit\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", place(limit[i]), y
        printf "<circle class=\"ours\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", place(ours[i]), y
        text(left + width + 50, y + 4, "end", sprintf("%.2f", ratio[i]))
        if (slow[i] != "") text(left + width + 112, y + 4, "dim end", sprintf("%.1f ms", slow[i] / 1000))
    }
    printf "<circle class=\"ours\" cx=\"22\" cy=\"%.1f\" r=\"4\"/>\n", bottom + 32
    text(32, bottom + 36, "", "cloakroom")
    printf "<circle class=\"limit\" cx=\"112\" cy=\"%.1f\" r=\"5\"/>\n", bottom + 32
    text(123, bottom + 36, "", "a C program that does no more than it must")

    text(x0 - 30, 26, "head", "One session: requests/s by clients")
    scale = int(most / 10000 + 1) * 10000
    step = scale > 40000 ? 20000 : scale > 10000 ? 10000 : 5000
    for (r = 0; r <= scale; r += step) {
        rule(x0, up(r), x1, up(r))
        text(x0 - 8, up(r) + 4, "dim end", thousands(r))
    }
    for (c = 1; c <= 32; c *= 2) text(across(c), y1 + 18, "dim mid", c)
    curve("limit", "C", 0); curve("ours", "exclusive", 44); curve("optimistic", "optimistic", 124)
    print "</svg>"
}
