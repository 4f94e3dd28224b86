"""The work of `bench file` as a peer does it, in a process of its own, so that whoever started it can measure what it costs.

    python bench/peers/files.py duckdb tumbling INPUT.ndjson OUT.parquet [--sites SITES.csv]

DuckDB, DataFusion and Polars work in batch: they see the whole file, wait for nothing and drop nothing late. Flink streams, with a watermark
5 s behind and a checkpoint each 10 s; what is late it drops. Results go to Parquet (Flink: a folder of JSON).
"""

import argparse
import glob
import os
import shutil

AGGREGATES = "count(*) AS n, sum(value) AS total, min(value) AS least, max(value) AS greatest, avg(value) AS mean"


def duckdb_(work, source, out, sites):
    import duckdb

    columns = "columns = {device_id: 'VARCHAR', ts: 'BIGINT', metric: 'VARCHAR', value: 'DOUBLE', seq: 'UBIGINT'}"
    database = duckdb.connect(config={"threads": len(os.sched_getaffinity(0))})
    readings = f"read_ndjson('{source}', {columns})"
    if work == "tumbling":
        sql = f"SELECT device_id, ts // 10000 * 10 AS window_start, {AGGREGATES} FROM {readings} GROUP BY 1, 2"
    elif work == "hopping":
        # Slices of 10 s, then six windows of each.
        slices = f"SELECT device_id, ts // 10000 AS s, count(*) AS n, sum(value) AS t, min(value) AS a, max(value) AS b FROM {readings} GROUP BY 1, 2"
        sql = (f"SELECT device_id, (s - k) * 10 AS window_start, sum(n)::BIGINT AS n, sum(t) AS total, min(a) AS least, max(b) AS greatest,"
               f" sum(t) / sum(n) AS mean FROM ({slices}), range(6) AS r(k) GROUP BY 1, 2")
    else:
        sql = (f"SELECT device_id, metric, seq, site, value * 1.8 + 32 AS fahrenheit, make_timestamp(ts * 1000) AS event_time, make_timestamp(ts * 1000)::DATE AS day"
               f" FROM (SELECT DISTINCT ON (device_id, seq) * FROM {readings}) JOIN read_csv('{sites}') USING (device_id) ORDER BY day, device_id, event_time")
        database.execute(f"COPY ({sql}) TO '{out}' (FORMAT parquet, PARTITION_BY (day), COMPRESSION zstd)")
        return
    database.execute(f"COPY ({sql}) TO '{out}' (FORMAT parquet)")


def polars_(work, source, out, sites):
    import polars as pl

    schema = {"device_id": pl.String, "ts": pl.Int64, "metric": pl.String, "value": pl.Float64, "seq": pl.UInt64}
    readings = pl.scan_ndjson(source, schema=schema)
    value = pl.col("value")
    if work == "tumbling":
        aggregates = [pl.len().alias("n"), value.sum().alias("total"), value.min().alias("least"), value.max().alias("greatest"), value.mean().alias("mean")]
        start = (pl.col("ts") // 10_000 * 10).alias("window_start")
        readings.group_by("device_id", start).agg(aggregates).sink_parquet(out)
    elif work == "hopping":
        slices = readings.group_by("device_id", (pl.col("ts") // 10_000).alias("s")).agg(
            pl.len().alias("n"), value.sum().alias("t"), value.min().alias("a"), value.max().alias("b"))
        spread = slices.join(pl.LazyFrame({"k": list(range(6))}), how="cross")
        spread.group_by("device_id", ((pl.col("s") - pl.col("k")) * 10).alias("window_start")).agg(
            pl.col("n").sum(), pl.col("t").sum().alias("total"), pl.col("a").min().alias("least"), pl.col("b").max().alias("greatest"),
            (pl.col("t").sum() / pl.col("n").sum()).alias("mean")).sink_parquet(out)
    else:
        time = pl.from_epoch("ts", "ms").alias("event_time")
        rows = readings.unique(["device_id", "seq"]).join(pl.scan_csv(sites), on="device_id").select(
            "device_id", "metric", "seq", "site", (value * 1.8 + 32).alias("fahrenheit"), time, time.dt.date().alias("day"))
        rows.sort("day", "device_id", "event_time").sink_parquet(pl.PartitionBy(out, key="day"), compression="zstd", mkdir=True)


def datafusion_(work, source, out, sites):
    import datafusion
    import pyarrow as pa

    config = datafusion.SessionConfig().with_target_partitions(len(os.sched_getaffinity(0)))
    context = datafusion.SessionContext(config)
    schema = pa.schema([("device_id", pa.string()), ("ts", pa.int64()), ("metric", pa.string()), ("value", pa.float64()), ("seq", pa.uint64())])
    context.register_json("readings", source, schema=schema, file_extension=".ndjson")
    if work == "tumbling":
        sql = f"SELECT device_id, ts / 10000 * 10 AS window_start, {AGGREGATES} FROM readings GROUP BY 1, 2"
    elif work == "hopping":
        slices = "SELECT device_id, ts / 10000 AS s, count(*) AS n, sum(value) AS t, min(value) AS a, max(value) AS b FROM readings GROUP BY 1, 2"
        sql = (f"SELECT device_id, (s - k) * 10 AS window_start, sum(n) AS n, sum(t) AS total, min(a) AS least, max(b) AS greatest, sum(t) / sum(n) AS mean"
               f" FROM ({slices}) CROSS JOIN (VALUES (0), (1), (2), (3), (4), (5)) AS r(k) GROUP BY 1, 2")
    else:
        context.register_csv("sites", sites)
        sql = ("SELECT r.device_id, metric, seq, site, value * 1.8 + 32 AS fahrenheit, to_timestamp_millis(ts) AS event_time, cast(to_timestamp_millis(ts) AS date) AS day"
               " FROM (SELECT DISTINCT ON (device_id, seq) * FROM readings ORDER BY device_id, seq) AS r JOIN sites ON r.device_id = sites.device_id"
               " ORDER BY day, device_id, event_time")
        context.sql(f"COPY ({sql}) TO '{out}/' STORED AS PARQUET PARTITIONED BY (day) OPTIONS (compression 'zstd(3)')").collect()
        return
    context.sql(f"COPY ({sql}) TO '{out}' STORED AS PARQUET").collect()


def flink_(work, source, out, sites):
    from pyflink.table import EnvironmentSettings, TableEnvironment

    table = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    options = {"parallelism.default": str(len(os.sched_getaffinity(0))), "execution.checkpointing.interval": "10 s",
               "execution.checkpointing.mode": "EXACTLY_ONCE", "execution.checkpointing.dir": f"file://{out}.checkpoints",
               "state.backend.type": "hashmap", "taskmanager.memory.process.size": "4g"}
    for name, value in options.items():
        table.get_config().set(name, value)
    table.execute_sql(f"""CREATE TABLE readings (device_id STRING, ts BIGINT, metric STRING, `value` DOUBLE, seq BIGINT,
        t AS TO_TIMESTAMP_LTZ(ts, 3), WATERMARK FOR t AS t - INTERVAL '5' SECOND) WITH ('connector' = 'filesystem', 'path' = 'file://{source}', 'format' = 'json')""")
    table.execute_sql(f"""CREATE TABLE results (device_id STRING, window_start BIGINT, n BIGINT, total DOUBLE, least DOUBLE, greatest DOUBLE, mean DOUBLE)
        WITH ('connector' = 'filesystem', 'path' = 'file://{out}', 'format' = 'json')""")
    window = {"tumbling": "TUMBLE(TABLE readings, DESCRIPTOR(t), INTERVAL '10' SECOND)",
              "hopping": "HOP(TABLE readings, DESCRIPTOR(t), INTERVAL '10' SECOND, INTERVAL '60' SECOND)"}[work]
    table.execute_sql(f"""INSERT INTO results SELECT device_id, UNIX_TIMESTAMP(CAST(window_start AS STRING)), count(*), sum(`value`), min(`value`), max(`value`), avg(`value`)
        FROM TABLE({window}) GROUP BY device_id, window_start, window_end""").wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["duckdb", "polars", "datafusion", "flink"])
    parser.add_argument("work", choices=["tumbling", "hopping", "enrich"])
    parser.add_argument("input")
    parser.add_argument("out")
    parser.add_argument("--sites")
    arguments = parser.parse_args()
    for path in glob.glob(arguments.out + "*"):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    globals()[arguments.peer + "_"](arguments.work, os.path.abspath(arguments.input), os.path.abspath(arguments.out), arguments.sites)


if __name__ == "__main__":
    main()
