# The table of tests/bench/run. Input, separated by tabs: part, row, kind, goal, round, who, value, p99, even. The
# medians go to the file `summary` as well: part, row, kind, ours, limit, ratio, p99 of ours, p99 of the limit, even.
# A row has the ratio of each round's two values, which were measured side by side. rate: requests/s or the like, ours as a
# share of the limit's, at least the goal; time: the limit's rate divided by ours, at most the goal; size: KiB, at most.

BEGIN { FS = OFS = "\t" }
{
    if (!($2 in kind)) { order[++rows] = $2; part[$2] = $1; kind[$2] = $3; goal[$2] = $4 }
    value[$2, $6, $5] = $7; slow[$2, $6, $5] = $8; even[$2, $5] = $6 == "ours" ? $9 : even[$2, $5]
    if ($5 > rounds) rounds = $5
}

# The median of list[1..n], which it sorts.
function middle(n,  i, j, x) {
    for (i = 2; i <= n; i++) {
        x = list[i]
        for (j = i - 1; j >= 1 && list[j] > x; j--) list[j + 1] = list[j]
        list[j + 1] = x
    }
    return (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
}
# The median of what[row, who, round] over the rounds, "" where there is none.
function median(what, row, who,  i, n) {
    for (i = 1; i <= rounds; i++) if ((row, who, i) in what && what[row, who, i] != "-") list[++n] = what[row, who, i] + 0
    return n ? middle(n) : ""
}
# The median of the quotients of two rows in the same round.
function quotient(row, who, over, by,  i, n) {
    for (i = 1; i <= rounds; i++)
        if ((row, who, i) in value && (over, by, i) in value) list[++n] = value[row, who, i] / value[over, by, i]
    return n ? middle(n) : ""
}
function figure(x) {
    if (x == "") return ""
    return sprintf(x < 100 ? "%.1f" : "%d", x)
}
function line(row, ours, theirs, ratio, bound, missed, slow_ours, slow_theirs, fair) {
    printf "%-38s %10s %10s %6s %8s %15s %8s%s\n", row, ours, theirs, ratio, bound, slow_ours slow_theirs, fair,
        missed ? "  missed" : ""
    goals += bound != ""; misses += missed != 0
}

END {
    printf "%-38s %10s %10s %6s %8s %15s %8s\n", "medians of " rounds " rounds", "ours", "limit (C)", "ratio", "goal",
        "p99 us", "max/min"
    for (at = 1; at <= rows; at++) {
        row = order[at]; unit = kind[row] == "size" ? " K" : kind[row] == "time" ? " us" : ""
        ours = median(value, row, "ours"); theirs = median(value, row, "limit")
        n = 0
        for (i = 1; i <= rounds; i++) if ((row, i) in even && even[row, i] != "-") list[++n] = even[row, i] + 0
        fair = n && part[row] == "contention" ? sprintf("%.1f", middle(n)) : ""
        ratio = kind[row] == "time" ? quotient(row, "limit", row, "ours") : quotient(row, "ours", row, "limit")
        missed = goal[row] != "" && (kind[row] == "rate" ? ratio < goal[row] + 0 \
            : (kind[row] == "time" ? ratio : ours) > goal[row] + 0)
        bound = goal[row] == "" ? "" : (kind[row] == "rate" ? ">= " : "<= ") goal[row]
        p = median(slow, row, "ours"); q = median(slow, row, "limit")
        if (summary) print part[row], row, kind[row], ours, theirs, ratio, p, q, fair >summary
        if (kind[row] == "time") { ours = 1e6 / ours; theirs = 1e6 / theirs }
        line(row, figure(ours) unit, theirs == "" ? "" : figure(theirs) unit, ratio == "" ? "" : sprintf("%.2f", ratio),
            bound, missed, figure(p), q == "" ? "" : " / " figure(q), fair)
    }
    split("exclusive optimistic", modes, " ")
    for (i = 1; i <= 2; i++) {
        few = "one session, " modes[i] ": 2"; many = "one session, " modes[i] ": 32"
        if (!(few in kind) || !(many in kind)) continue
        ratio = quotient(many, "ours", few, "ours"); theirs = quotient(many, "limit", few, "limit")
        line("one session, " modes[i] ": 32 over 2", sprintf("%.2f", ratio), theirs == "" ? "" : sprintf("%.2f", theirs), "",
            ">= 0.7", ratio < 0.7, "", "", "")
    }
    if (goals) printf "%d of %d goals reached\n", goals - misses, goals
    exit misses > 0
}
