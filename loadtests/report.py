"""The tables: medians with ranges, and ratios taken within each round."""

from statistics import median


def spread(values, digits=0):
    """`median (least to greatest)`."""
    if not values:
        return "-"
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def column(results, proxy, case, key):
    """The values of one figure by round: {round: value}."""
    return {r["round"]: r[key] for r in results if r["proxy"] == proxy and r["case"] == case and r.get(key) is not None}


def paired(first, second, combine):
    """`combine` over the rounds in which both have a value."""
    return [combine(first[number], second[number]) for number in sorted(first.keys() & second.keys()) if second[number]]


def why_missing(results, proxy, case):
    """What stopped the rounds that gave nothing; empty when all gave figures."""
    reasons = [r["failed"] for r in results if r["proxy"] == proxy and r["case"] == case and r.get("failed")]
    return f"{reasons[0]} [{len(reasons)} round(s)]" if reasons else ""


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def load_table(results, proxies, case):
    head = ["proxy", "CPU µs/request", "ratio to HAProxy", "requests/s", "p50 µs", "p99 µs", "peak MiB"]
    resumes = any(column(results, proxy, case, "resumed") for proxy in proxies)
    head += ["sessions resumed, %"] if resumes else []
    baseline = column(results, "haproxy", case, "cpu_us")
    rows, notes = [], []
    for proxy in proxies:
        get = lambda key: list(column(results, proxy, case, key).values())
        missing = why_missing(results, proxy, case)
        if missing:
            notes.append(f"{proxy}: {missing}")
        ratios = paired(column(results, proxy, case, "cpu_us"), baseline, lambda own, other: own / other)
        rows.append([proxy, spread(get("cpu_us"), 1), spread(ratios, 2), spread(get("rate")), spread(get("p50_us")),
                     spread(get("p99_us")), spread(get("peak_mib"), 1)])
        if resumes:
            rows[-1].append(spread([share * 100 for share in get("resumed")], 1))
    return "\n".join([table(head, rows), *(f"\n{note}" for note in notes)])


def idle_table(results, proxies, case):
    head = ["proxy", "KiB per idle connection", "peak MiB"]
    rows, notes = [], []
    for proxy in proxies:
        missing = why_missing(results, proxy, case)
        if missing:
            notes.append(f"{proxy}: {missing}")
        rows.append([proxy, spread(list(column(results, proxy, case, "idle_kib").values()), 2),
                     spread(list(column(results, proxy, case, "peak_mib").values()), 1)])
    return "\n".join([table(head, rows), *(f"\n{note}" for note in notes)])


def affinity_table(results, proxies, by_weight, by_user):
    """What affinity costs: the difference in each round between the same requests split by user and by weight."""
    rows = []
    for proxy in proxies:
        extra = paired(column(results, proxy, by_user, "cpu_us"), column(results, proxy, by_weight, "cpu_us"),
                       lambda user, weight: user - weight)
        if extra:
            rows.append([proxy, spread(extra, 1)])
    return table(["proxy", "CPU µs/request more than by weight"], rows) if rows else ""
